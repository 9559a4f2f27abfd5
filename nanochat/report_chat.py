"""The chat evaluation of a run for its report: scores with intervals, stage by stage, as table and figure.

What it is: `collect` reads `evals/chat.json` of the stages' folders; `table` and `draw` show them, ChatCORE
by the name that says which tasks it has. What it is not: the evaluation (`scripts/chat_eval.py`) or the exams
of the embedded world, which have their own section. No torch. Run: `python -m scripts.report --run d20`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.common import read_json
from nanochat.report_plots import COLOURS, STYLE, Plot, to_svg
from nanochat.report_tables import NO_VALUE, TITLES, Report, Table, percent, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGES = ("base", "mid", "sft", "rl")
TITLE = "Chat evaluation"
CAPTION = (
    "Share of right answers and its 95 % interval, stage by stage; the ticks are what guessing gives. "
    "ChatCORE is the mean over its tasks of (score - guessing) / (1 - guessing)."
)


def collect(root: Path, run: str) -> dict[str, Any]:
    """Stage -> task or ChatCORE -> score, low, high, n, chance; stages that sat nothing are absent."""
    found = {}
    for stage in STAGES:
        path = root / f"{stage}_{run}" / "evals" / "chat.json"
        if path.is_file():
            stored = read_json(path)
            cores = {name: core for name, core in stored.get("chatcore", {}).items() if "score" in core}
            found[stage] = {**stored["exams"], **cores}
    return found


def rows(report: Report) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Task or ChatCORE -> stage -> its figures."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, scores in report["chat"].items():
        for name, facts in scores.items():
            found.setdefault(name, {})[stage] = facts
    return found


def table(report: Report) -> Table:
    """One line a task, the ChatCOREs last."""
    stages = list(report["chat"])
    lines = []
    for name, found in sorted(rows(report).items(), key=lambda row: row[0].startswith("ChatCORE")):
        cells = [_cell(found[stage]) if stage in found else NO_VALUE for stage in stages]
        first = next(iter(found.values()))
        lines.append([name, *cells, percent(first.get("chance")), quantity(first["n"])])
    return Table(TITLE, ["", *(TITLES.get(s, s.upper()) for s in stages), "guessing", "items"], lines)


def _cell(facts: Mapping[str, Any]) -> str:
    interval = f"{percent(facts['score'])} ({100 * facts['low']:.1f} to {100 * facts['high']:.1f})"
    others = [f"pass@{k} {percent(share)}" for k, share in facts.get("pass_at", {}).items() if k != "1"]
    counted = [f"{facts[key]} {word}" for key, word in COUNTS.items() if facts.get(key)]
    return ", ".join([interval, *others, *counted])


COUNTS = {"overlong": "too long", "empty": "empty", "raised": "checks failed"}


def draw(report: Report) -> Plot | None:
    """A dot with its interval for each stage and task; None without matplotlib or results."""
    found = rows(report)
    try:
        import matplotlib
    except ImportError:
        return None
    if not found:
        return None
    names = sorted(found, key=lambda name: name.startswith("ChatCORE"))
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.2, 0.7 + 0.42 * len(names)))
        axes = figure.add_axes((0.17, 0.42 / figure.get_figheight(), 0.81, 1 - 0.8 / figure.get_figheight()))
        _draw_scores(axes, names, found, list(report["chat"]))
        return Plot(TITLE, CAPTION, to_svg(figure, "chat"))


def _draw_scores(
    axes: Axes, names: list[str], found: dict[str, dict[str, Mapping[str, Any]]], stages: list[str]
) -> None:
    for n, stage in enumerate(stages):
        shown = [(y, found[name][stage]) for y, name in enumerate(names) if stage in found[name]]
        offset = 0.5 * ((n + 0.5) / len(stages) - 0.5)
        colour = COLOURS.get(stage, COLOURS["text"])
        for y, facts in shown:
            axes.plot([100 * facts["low"], 100 * facts["high"]], [y + offset] * 2, color=colour)
        points = [(100 * facts["score"], y + offset) for y, facts in shown]
        label = TITLES.get(stage, stage.upper())
        axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=5, label=label)
    chances = [next(iter(found[name].values())).get("chance") for name in names]
    guessed = [(100 * chance, y) for y, chance in enumerate(chances) if chance is not None]
    if guessed:
        axes.plot(
            *zip(*guessed, strict=True), "|", color=COLOURS["text"], markersize=18, zorder=1, label="guessing"
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("%")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, handlelength=0.8, borderpad=0)
