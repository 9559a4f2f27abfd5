"""Problems whose answer is a number: what a reply to one is worth, in training and as an exam.

What it is: items with `messages` that end with the user's question and a `result`, from JSONL or Parquet
files. A reply is right if the last number in what a reader sees of it is the result, and if it ended itself;
how it got there (calls of the calculator, their number) is its own business. What it is not: the problems of
the embedded world (`nanochat/world_problems.py` writes them), or a loop (`nanochat/rollout.py`).
Run: `python -m scripts.chat_rl --problems mine.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from nanochat.common import UsageError
from tasks.common import load_mixture
from tasks.sample_world import visible

Item = dict[str, Any]
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def last_number(text: str) -> Fraction | None:
    """The last number of a text, `1,234.5` and its like included, or None."""
    found = NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


class Problems(Sequence[Item]):
    """The problems of some files; a `Task` of `rollout.py` and an `Exam` of `evaluate.py`."""

    kind: Literal["choice", "generative"] = "generative"
    must_end = True  # a reply that does not stop is wrong, whatever it says

    def __init__(self, items: Sequence[Item]) -> None:
        """UsageError if one has no `messages`, or no `result` that is a number."""
        self._items = items
        for index, item in enumerate(items):
            if "messages" not in item or _number(item.get("result")) is None:
                raise UsageError(
                    f"problem {index + 1} needs `messages` and a number as `result`: {item!r:.200}"
                )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        return self._items[index]

    def check(self, item: Item, reply: str) -> bool:
        """Whether the reply's last number is the result."""
        return last_number(visible(reply)) == _number(item["result"])

    def reward(self, item: Item, reply: str, ended: bool) -> float:
        """1 for a right reply that ended itself, else 0."""
        return float(self.check(item, reply) and (ended or not self.must_end))


def _number(result: Any) -> Fraction | None:
    if isinstance(result, str):
        return last_number(result)
    return Fraction(str(result)) if isinstance(result, (int, float)) else None


def load_problems(folder: Path, names: str) -> tuple[Problems, str]:
    """The problems of a comma-separated list of files below `folder`, and a hash of their bytes."""
    items, digest = load_mixture(folder, names)
    return Problems(items), digest
