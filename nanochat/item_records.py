"""One JSON line for each item of an evaluation, and what two such files say about two models.

What it is: `ItemRecord`, files of them (written whole, read back with faults named), Wilson and bootstrap
intervals, and `compare`, the paired bootstrap of two files with the same items. What it is not: the loops
that make records (`core_eval.py`, `tasks/evaluate.py`). No torch.
Run: `python -m scripts.chat_eval --compare A.jsonl B.jsonl`, or `pytest tests/test_item_records.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nanochat.common import UsageError, atomic_path, json_safe

RESAMPLES = 10_000
CELLS = 1 << 20  # numbers that a resampling holds at a time
Z95 = 1.959964  # standard normal quantile of a two-sided 95 % interval
TIE = 1e-12  # sums of thirds are not exact


@dataclass(frozen=True)
class ItemRecord:
    """What became of one item. `scores`: of each option, or of each sampled reply; null if not finite."""

    task: str
    index: int  # in the whole task, whatever the limit and the order
    prompt: str  # `prompt_hash` of everything that the model was shown
    scores: Sequence[float | None]
    prediction: Any
    gold: Any
    correct: float  # 0 to 1: right or wrong, or the share of samples that are right
    note: str = ""  # why an item counts as wrong without having been answered; empty if it was answered

    @property
    def key(self) -> tuple[str, int]:
        return self.task, self.index


def prompt_hash(*texts: str) -> str:
    """16 hexadecimal digits that stand for the texts, in this order."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


# ----------------------------------------------------------------------------- files


def write_records(path: Path, records: Iterable[ItemRecord]) -> None:
    """Write a file of records by task and index, whole or not at all."""
    ordered = sorted(records, key=lambda record: record.key)
    with atomic_path(path) as temp, temp.open("w", encoding="utf-8") as file:
        for record in ordered:
            line = json.dumps(json_safe(asdict(record)), ensure_ascii=False, allow_nan=False)
            file.write(line + "\n")


def read_records(path: Path) -> list[ItemRecord]:
    """The records of a file. UsageError with file, line and fault if it is not one."""
    if not path.is_file():
        raise UsageError(f"no item records at {path}; an evaluation writes them beside its results")
    records: dict[tuple[str, int], ItemRecord] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = _parse(json.loads(line))
            if record.key in records:
                raise ValueError(f"item {record.index} of {record.task} stands twice")
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}, line {number}: {error}; run the evaluation again") from error
        records[record.key] = record
    if not records:
        raise UsageError(f"{path} is empty; run the evaluation again")
    return list(records.values())


def _parse(stored: Any) -> ItemRecord:
    names = {field.name for field in fields(ItemRecord)}
    if not isinstance(stored, dict) or not names - {"note"} <= set(stored) <= names:
        raise ValueError(f"an item record needs exactly {', '.join(sorted(names))}")
    record = ItemRecord(**stored)
    typed = {"task": str, "index": int, "prompt": str, "scores": list, "note": str}
    wrong = [name for name, kind in typed.items() if not isinstance(stored.get(name, ""), kind)]
    if wrong:
        raise ValueError(f"`{wrong[0]}` is {stored[wrong[0]]!r}, not a {typed[wrong[0]].__name__}")
    if not (isinstance(record.correct, (int, float)) and 0 <= record.correct <= 1):
        raise ValueError(f"`correct` is {record.correct!r}, not a number from 0 to 1")
    return record


# ----------------------------------------------------------------------------- intervals


def wilson(right: float, n: float) -> tuple[float, float]:
    """95 % score interval of a share, honest near 0 and 1 and for small n (Wilson 1927)."""
    share, z2 = right / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return centre - half if right > 0 else 0.0, centre + half if right < n else 1.0


def bootstrap(groups: Mapping[str, ArrayLike], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over groups (tasks) of their means; items are resampled within each."""
    return _interval(np.mean([_resampled(name, values, seed) for name, values in groups.items()], axis=0))


def _resampled(name: str, values: ArrayLike, seed: int) -> np.ndarray:
    """(RESAMPLES,) means of as many values drawn with replacement; a group's draws depend on its name only.

    What is drawn is how often each distinct value comes, which is the same and, for right and wrong, faster.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = counts.sum()
    rng = np.random.default_rng([seed, *name.encode()])
    means, rows = np.empty(RESAMPLES), max(1, CELLS // len(distinct))
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = rng.multinomial(n, counts / n, size=size)
        means[start : start + size] = drawn @ distinct / n
    return means


def _interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


# ----------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Difference:
    """How much better `b` is than `a` on the same items."""

    n: int
    a: float  # mean of `correct`, less the baseline if there is one
    b: float
    mean: float  # b - a
    low: float  # 95 % interval of the mean (paired bootstrap)
    high: float
    share: float  # of resamples in which b is ahead; ties count half

    def __str__(self) -> str:
        interval = f"{self.mean:+.4f} (95 %: {self.low:+.4f} to {self.high:+.4f})"
        return f"{self.a:.4f} -> {self.b:.4f}, {interval}, ahead in {self.share:.1%}, {self.n} items"


def compare(
    a: Sequence[ItemRecord],
    b: Sequence[ItemRecord],
    *,
    baselines: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, Difference]:
    """The difference on each task and, as `mean`, over the tasks (each counts the same).

    With `baselines` (task -> score of guessing) scores are centred: (correct - baseline) / (1 - baseline).
    UsageError if the two do not have the same items with the same prompts.
    """
    pairs = _paired(a, b)
    found, resampled = {}, []
    for task in sorted({task for task, _ in pairs}):
        baseline = (baselines or {}).get(task, 0.0)
        both = np.array([pair for (name, _), pair in pairs.items() if name == task])
        both = (both - baseline) / (1 - baseline)
        resampled.append(_resampled(task, both[:, 1] - both[:, 0], seed))
        found[task] = _difference(len(both), both.mean(axis=0), resampled[-1])
    if len(found) > 1:
        over_tasks = np.mean([(one.a, one.b) for one in found.values()], axis=0)
        found["mean"] = _difference(len(pairs), over_tasks, np.mean(resampled, axis=0))
    return found


def _paired(a: Sequence[ItemRecord], b: Sequence[ItemRecord]) -> dict[tuple[str, int], tuple[float, float]]:
    """(task, index) -> `correct` of both."""
    first, second = ({record.key: record for record in records} for records in (a, b))
    if alone := sorted(first.keys() ^ second.keys()):
        task, index = alone[0]
        raise UsageError(
            f"{len(alone)} items are in one file only, such as {task} {index} in the "
            f"{'first' if alone[0] in first else 'second'}; evaluate both with the same tasks and limit"
        )
    if other := sorted(key for key in first if first[key].prompt != second[key].prompt):
        task, index = other[0]
        raise UsageError(
            f"the prompts of {len(other)} items differ, such as {task} {index}: the two were not asked the "
            "same; evaluate both with the same data, form and code"
        )
    return {key: (first[key].correct, second[key].correct) for key in first}


def _difference(n: int, means: np.ndarray, resampled: np.ndarray) -> Difference:
    ahead, tied = np.mean(resampled > TIE), np.mean(np.abs(resampled) <= TIE)
    a, b = float(means[0]), float(means[1])
    return Difference(n, a, b, b - a, *_interval(resampled), float(ahead + tied / 2))
