"""CORE in a report: a table of the 22 tasks and a figure of their centred accuracies with intervals.

What it is: pure functions from the dict of `report.collect` (its `core` is each stage's `evals/core.json`).
What it is not: scores (`core_eval.py`) or pages (`report_pages.py`). No torch.
Run: `python -m scripts.report --run d12`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanochat.report_plots import COLOURS, STYLE, Plot, to_svg
from nanochat.report_tables import NO_VALUE, TITLES, Report, Table, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = "Centred accuracy: 0 is the task's baseline, 1 is all right; lines are 95 % intervals (Wilson)."
INCH_PER_TASK = 0.2


def table(report: Report) -> Table:
    """A row a task: centred accuracy and, of the last stage, what it is made of; below, the mean."""
    found: Mapping[str, Mapping[str, Any]] = report["core"]
    if not found:
        return Table("CORE", [], [])
    tasks = {stage: {task["task"]: task for task in core["tasks"]} for stage, core in found.items()}
    last = list(tasks.values())[-1]
    rows = []
    for name, task in last.items():
        scores = [_signed(tasks[stage].get(name, {}).get("centered")) for stage in found]
        interval = f"{percent(task['accuracy'])} ({percent(task['low'])} to {percent(task['high'])})"
        rows.append([name, *scores, interval, percent(task["baseline"]), f"{task['n']:,}"])
    means = [f"{core['core']:+.4f} ({core['low']:+.4f} to {core['high']:+.4f})" for core in found.values()]
    whole = all(core["n_tasks"] == 22 for core in found.values())
    rows.append(["CORE" if whole else "mean (not CORE)", *means, "", "", ""])
    header = ["", *(f"{TITLES[stage]}, centred" for stage in found), "accuracy", "baseline", "questions"]
    return Table("CORE", header, rows)


def _signed(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:+.4f}"


def draw(report: Report) -> list[Plot]:
    """A figure a stage; none without matplotlib, which `report_plots.draw` says."""
    try:
        import matplotlib
    except ImportError:
        return []
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        return [
            Plot(f"CORE {core['core']:.4f}, {TITLES[stage]}", CAPTION, _svg(stage, core["tasks"]))
            for stage, core in report["core"].items()
        ]


def _svg(stage: str, tasks: list[Mapping[str, Any]]) -> str:
    from matplotlib.figure import Figure

    height = INCH_PER_TASK * len(tasks) + 0.5
    figure = Figure(figsize=(5.6, height))
    axes: Axes = figure.add_axes((0.4, 0.35 / height, 0.57, 1 - 0.4 / height))
    for place, task in enumerate(reversed(tasks)):
        low, high = ((task[end] - task["baseline"]) / (1 - task["baseline"]) for end in ("low", "high"))
        axes.barh(place, task["centered"], color=COLOURS[stage], height=0.7, alpha=0.6)
        axes.plot([low, high], [place, place], color=COLOURS["text"], linewidth=1)
    axes.axvline(0, color=COLOURS["text"], linewidth=0.8)
    axes.set_yticks(range(len(tasks)), [task["task"] for task in reversed(tasks)], fontsize=7)
    axes.set_ylim(-0.7, len(tasks) - 0.3)
    return to_svg(figure, f"core-{stage}")
