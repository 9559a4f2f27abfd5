"""ChatCORE: one number for a chat model, the mean over tasks of (score - baseline) / (1 - baseline).

What it is: `ChatCORE-5` as published (ARC easy and challenge, MMLU, GSM8K, HumanEval) and `ChatCORE-6`, which
has SpellingBee as well and lies higher for it, so that the two are never confused; intervals by bootstrap;
the results of an evaluation as JSON, CSV and item records, and the comparison of two of them. What it is not:
the tasks or the loops. No torch. Run: `python -m scripts.chat_eval --tasks all`.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanochat.common import atomic_path, write_json
from nanochat.item_records import Difference, ItemRecord, bootstrap, compare, read_records, write_records

BASELINES = {  # the score of guessing
    "arc-easy": 0.25, "arc-challenge": 0.25, "mmlu": 0.25, "gsm8k": 0.0, "humaneval": 0.0, "spellingbee": 0.0,
}  # fmt: skip
CHATCORES = {"ChatCORE-5": list(BASELINES)[:5], "ChatCORE-6": list(BASELINES)}
COLUMNS = ("task", "n", "score", "low", "high", "baseline", "centred", "empty", "overlong", "raised")


def centred(task: str, score: float) -> float:
    """0 for guessing, 1 for all right."""
    baseline = BASELINES.get(task, 0.0)
    return (score - baseline) / (1 - baseline)


def chatcore(records: Mapping[str, Sequence[ItemRecord]]) -> dict[str, dict[str, Any]]:
    """Name -> score, 95 % interval, items; or, where a task was not sat, what is missing."""
    found: dict[str, dict[str, Any]] = {}
    for name, tasks in CHATCORES.items():
        if missing := [task for task in tasks if task not in records]:
            found[name] = {"missing": missing}
            continue
        values = {task: [centred(task, one.correct) for one in records[task]] for task in tasks}
        low, high = bootstrap(values)
        score = statistics.fmean(map(statistics.fmean, values.values()))
        found[name] = {"score": score, "low": low, "high": high, "n": sum(map(len, values.values()))}
    return found


def describe(name: str, found: Mapping[str, Any]) -> str:
    """A ChatCORE as a line for a person."""
    if "missing" in found:
        return f"{name:<26} not computed: it needs {', '.join(found['missing'])}, too"
    return f"{name:<26} {found['score']:.4f} ({found['low']:.4f} to {found['high']:.4f}), {found['n']} items"


def write_results(
    folder: Path, name: str, facts: Mapping[str, Any], records: Mapping[str, Sequence[ItemRecord]]
) -> None:
    """`NAME_items.jsonl`, `NAME.csv` and, last, `NAME.json`, which says that the evaluation is whole."""
    write_records(folder / f"{name}_items.jsonl", (one for found in records.values() for one in found))
    with atomic_path(folder / f"{name}.csv") as temp:
        temp.write_text(as_csv(facts["exams"]), encoding="utf-8")
    write_json(folder / f"{name}.json", facts)


def as_csv(exams: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a task; what a task does not have is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for task, found in exams.items():
        known = {"task": task, "centred": centred(task, found["score"]), **found}
        writer.writerow({**known, "baseline": BASELINES.get(task, "")})
    return text.getvalue()


def compare_files(a: Path, b: Path) -> dict[str, Difference]:
    """Each task, the mean over tasks and, where both files have all tasks of one, the ChatCOREs."""
    both = [read_records(path) for path in (a, b)]
    found = compare(*both)
    for name, tasks in CHATCORES.items():
        if set(tasks) <= set(found):
            chosen = [[one for one in records if one.task in tasks] for records in both]
            found[name] = compare(*chosen, baselines=BASELINES)["mean"]
    return found
