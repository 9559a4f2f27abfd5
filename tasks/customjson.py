"""Your own conversations or texts: a JSONL or Parquet file as a task.

Each line or row has `messages` (a list of `{"role", "content"}`) or `text`. What it is not: a check of
the conversations, which the tokenizer does when it renders them, by name of the fault.
Run: `python -m scripts.chat_sft --mixture mine.jsonl`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import UsageError, sha256_file
from tasks.common import Item, Task


class CustomJSON(Task):
    """The rows of one file, in order. JSONL is kept as bytes and parsed when a row is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = self._parquet() if path.suffix == ".parquet" else self._lines()
        super().__init__(path.name, len(self.rows), sha256_file(path))
        if not self.rows:
            raise UsageError(f"{path} is empty")
        self[0]  # a file of another layout is found out now, not in mid-run

    def item(self, index: int) -> Item:
        row = self.rows[index]
        try:
            item = json.loads(row) if isinstance(row, bytes) else row
        except ValueError as error:
            raise UsageError(f"{self.path}, record {index + 1}: not JSON ({error})") from error
        if not isinstance(item, dict) or not ("messages" in item or "text" in item):
            raise UsageError(f"{self.path}, record {index + 1}: needs `messages` or `text`")
        return item

    def _lines(self) -> list[Any]:
        return [line for line in self.path.read_bytes().splitlines() if line.strip()]

    def _parquet(self) -> list[Any]:
        try:
            table = pq.read_table(self.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"{self.path} cannot be read as Parquet ({error}); fetch it again") from error
        return table.to_pylist()
