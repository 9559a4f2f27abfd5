"""Problems whose answer is a number: what a reply to one is worth, in training and as an exam.

What it is: items with `messages` that end with the user's question and a `result`, from JSONL or Parquet
files. A reply is right if the last number in what a reader sees of it is the result, and if it ended itself;
how it got there (calls of the calculator, their number) is its own business. What it is not: the problems of
the embedded world (`nanochat/world/problems.py` writes them), or a loop (`nanochat/rollout.py`).
Run: `python -m scripts.chat_rl --problems mine.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from nanochat.common import UsageError
from tasks.common import Item, Kind, Task, TaskSequence
from tasks.customjson import CustomJSON
from tasks.sample_world import visible

NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def last_number(text: str) -> Fraction | None:
    """The last number of a text, `1,234.5` and its like included, or None."""
    found = NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


class Problems(Task):
    """Some problems."""

    kind: Kind = "generative"
    must_end = True  # a reply that does not stop is wrong, whatever it says
    max_tokens = 128

    def __init__(self, items: Sequence[Item], fingerprint: str = "") -> None:
        """UsageError if one has no `messages`, or no `result` that is a number."""
        super().__init__("problems", len(items), fingerprint)
        self._items = items
        for index, item in enumerate(items):
            if "messages" not in item or _number(item.get("result")) is None:
                raise UsageError(
                    f"problem {index + 1} needs `messages` and a number as `result`: {item!r:.200}"
                )

    def item(self, index: int) -> Item:
        return self._items[index]

    def check(self, item: Item, reply: str) -> bool:
        """Whether the reply's last number is the result."""
        return last_number(visible(reply)) == _number(item["result"])


def _number(result: Any) -> Fraction | None:
    if isinstance(result, str):
        return last_number(result)
    return Fraction(str(result)) if isinstance(result, (int, float)) else None


def load_problems(folder: Path, names: str) -> Problems:
    """The problems of a comma-separated list of files below `folder`."""
    paths = [folder / name.strip() for name in names.split(",") if name.strip()]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise UsageError(f"problems {names!r}: no such file: {', '.join(missing) or '(none named)'}")
    files = TaskSequence([CustomJSON(path) for path in paths])
    return Problems(files, files.fingerprint)
