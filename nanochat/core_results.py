"""CORE's results for people and programs: progress while it runs, files behind it, and two runs compared.

What it is: the wiring between `core_eval` and the screen or a run folder's `evals/`: `core.json`, `core.csv`
(a line a task), `core_items.jsonl` (a line a question). What it is not: pages (`report.py`) or scores
(`core_eval.py`). Run: `python -m scripts.base_eval --evals core`, and then with `--compare A B`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from nanochat import core_eval
from nanochat.common import atomic_path, print0, write_json
from nanochat.config_eval import BaseEval
from nanochat.core_bundle import CORE_TASKS, Bundle
from nanochat.core_eval import CoreResult, Encoder, TaskScore
from nanochat.distributed import World
from nanochat.item_records import compare, read_records, write_records
from nanochat.likelihood import Scorer
from nanochat.metrics import Progress, format_seconds

COLUMNS = ("task", "accuracy", "low", "high", "baseline", "centered", "n", "shots", "chance", "seconds")
BATCH_KIB = {"cpu": 16, "cuda": 512}


def run(
    config: BaseEval, bundle: Bundle, world: World, scorer: Scorer, encoder: Encoder, context: int
) -> CoreResult:
    """Ask a model the bundle's questions; a line a task and the sum are printed."""
    for note in bundle.notes:
        print0(f"note: {note}")
    kib = config.batch_kib or BATCH_KIB.get(world.device.type, 16)
    with Progress(
        bundle.count(config.max_per_task), "core", unit="question", enabled=world.is_main
    ) as progress:

        def tell(done: int, score: TaskScore | None) -> None:
            progress.update(min(done, progress.total_steps))
            if score is not None:
                print0(score)

        result = core_eval.evaluate(
            bundle, encoder, scorer, world,
            context=context, budget=kib << 10, limit=config.max_per_task, tell=tell,
        )  # fmt: skip
    print0(_summary(result))
    return result


def _summary(result: CoreResult) -> str:
    low, high = result.interval
    name = "CORE" if result.is_core else f"mean of {len(result.scores)} of 22 tasks (not CORE)"
    tokens = sum(score.tokens for score in result.scores)
    return (
        f"{name} {result.core:.4f} (95 %: {low:.4f} to {high:.4f}), {len(result.records):,} questions in "
        f"{format_seconds(result.seconds)}; {tokens:,} tokens by {result.tokens_fed:,} read"
    )


def write(folder: Path, result: CoreResult) -> None:
    """Write the three files into a run folder's `evals/`."""
    facts = result.facts()
    write_json(folder / "evals" / "core.json", facts)
    with (
        atomic_path(folder / "evals" / "core.csv") as temp,
        temp.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()
        table.writerows(facts["tasks"])
        ends = {"low": facts["low"], "high": facts["high"], "centered": facts["core"]}
        table.writerow({"task": "core" if result.is_core else "mean", **ends, "n": len(result.records)})
    write_records(folder / "evals" / "core_items.jsonl", result.records)


def compared(a: str, b: str) -> Iterator[str]:
    """How much better the second file of item records is than the first, a line a task; centred accuracy."""
    baselines = {name: task.baseline for name, task in CORE_TASKS.items()}
    first, second = (read_records(Path(path).expanduser()) for path in (a, b))
    for name, difference in compare(first, second, baselines=baselines).items():
        yield f"{name:<32} {difference}"
