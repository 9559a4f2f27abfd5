"""ARC: science questions of US schools with three to five options (arXiv 1803.05457), easy and challenge.

Columns: `question`, `choices` (`text`, `label`), `answerKey`. Labels are the data set's own, letters or
digits. What it is not: the `arc_*` tasks of CORE, which have few-shot prompts.
Run: `python -m scripts.chat_eval --tasks arc-easy,arc-challenge`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.common import Item, Kind, multiple_choice
from tasks.rows import RowTask


class ARC(RowTask):
    """`level` easy or challenge; `split` train, validation or test."""

    kind: Kind = "letter"

    def __init__(self, root: Path, level: str, split: str) -> None:
        folder = f"tasks/arc/ARC-{level.capitalize()}"
        super().__init__(f"arc-{level}", root, folder, split, ("question", "choices", "answerKey"))

    def convert(self, row: dict[str, Any]) -> Item:
        labels = row["choices"]["label"]
        if row["answerKey"] not in labels:
            raise ValueError(f"the answer {row['answerKey']!r} is none of {', '.join(labels)}")
        gold = labels.index(row["answerKey"])
        return multiple_choice(row["question"], row["choices"]["text"], labels, gold)
