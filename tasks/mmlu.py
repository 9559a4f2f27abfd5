"""MMLU: questions of 57 subjects with four options (arXiv 2009.03300), asked without examples.

Columns: `question`, `subject`, `choices`, `answer` (0 to 3). Splits: test, validation, dev, and
auxiliary_train to train on, which comes from other data sets.
Run: `python -m scripts.chat_eval --tasks mmlu`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.common import Item, Kind, multiple_choice
from tasks.rows import RowTask

LETTERS = "ABCD"


class MMLU(RowTask):
    """`split` test, validation, dev or auxiliary_train."""

    kind: Kind = "letter"

    def __init__(self, root: Path, split: str) -> None:
        columns = ("question", "subject", "choices", "answer")
        super().__init__("mmlu", root, "tasks/mmlu/all", split, columns)

    def convert(self, row: dict[str, Any]) -> Item:
        item = multiple_choice(row["question"], row["choices"], LETTERS, row["answer"])
        return {**item, "subject": row["subject"]}
