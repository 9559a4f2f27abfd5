"""What a task is, and how several become one training mixture.

A task is a sequence of items. An item is a conversation (`{"messages": [...]}`) or a text
(`{"text": ...}`); tasks with a score also have `check`. Nothing here loads torch.
Run: `pytest tests/test_tasks.py`.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanochat.common import UsageError, sha256_file
from tasks.customjson import CustomJSON

Item = dict[str, Any]


class TaskMixture(Sequence[Item]):
    """Several tasks end to end; a task that is named twice is seen twice an epoch. The loader shuffles."""

    def __init__(self, tasks: Sequence[Sequence[Item]]) -> None:
        self.tasks = list(tasks)
        self.ends = list(itertools.accumulate(len(task) for task in self.tasks))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        task = bisect.bisect_right(self.ends, index)
        return self.tasks[task][index - (self.ends[task - 1] if task else 0)]


def load_mixture(folder: Path, names: str) -> tuple[TaskMixture, str]:
    """The files of a comma-separated list below `folder`, as one mixture, and a hash of their bytes."""
    paths = [folder / name.strip() for name in names.split(",") if name.strip()]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise UsageError(f"mixture {names!r}: no such file: {', '.join(missing) or '(none named)'}")
    digest = hashlib.sha256(" ".join(sha256_file(path) for path in paths).encode()).hexdigest()
    return TaskMixture([CustomJSON(path) for path in paths]), digest
