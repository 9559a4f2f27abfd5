"""The rows of one split of a data set from the hub, as its Parquet files hold them.

What it is: `Rows`, columns in Arrow's memory and rows decoded one at a time, and `RowTask`, a task of them
whose faults name file and row. The files are those that `scripts.download_data` fetched at a pinned commit
(`tasks/GROUP/` below the base folder); nothing is fetched here, and no cache is written, so that many ranks
on a shared filesystem need no lock. What it is not: their meaning (`arc.py`, `gsm8k.py`, ...). No torch.
Run: `pytest tests/test_hub_tasks.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import UsageError, sha256_file
from nanochat.ledger import FETCH, Ledger
from tasks.common import Item, Task, digest


class Rows:
    """`len(rows)`, `rows[i]` -> dict of the columns asked for. UsageError for a split that is not so."""

    def __init__(self, root: Path, folder: str, split: str, columns: Sequence[str]) -> None:
        self.paths = _files(root / folder, split)
        self.table = pa.concat_tables([_read(path, columns) for path in self.paths])
        self.fingerprint = digest([content_hash(root, path) for path in self.paths])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.table.slice(index, 1).to_pylist()[0]  # type: ignore[no-any-return]

    def where(self, index: int) -> str:
        """A row's place for a person: file and row, from 1."""
        for path in self.paths:
            rows = pq.read_metadata(path).num_rows
            if index < rows:
                return f"{path}, row {index + 1}"
            index -= rows
        raise IndexError(index)


class RowTask(Task):
    """A task of one item a row; `convert` makes it, and a ValueError there is named with file and row."""

    def __init__(self, name: str, root: Path, folder: str, split: str, columns: Sequence[str]) -> None:
        self.rows = Rows(root, folder, split, columns)
        super().__init__(name, len(self.rows), self.rows.fingerprint)

    @abstractmethod
    def convert(self, row: dict[str, Any]) -> Item:
        """The item of a row; ValueError if it is none."""

    def item(self, index: int) -> Item:
        row = self.rows[index]
        try:
            if missing := [name for name, value in row.items() if value is None]:
                raise ValueError(f"`{missing[0]}` is empty")
            return self.convert(row)
        except (ValueError, TypeError, KeyError) as error:
            what = f"{self.rows.where(index)}: {error}"
            raise UsageError(f"{what}; fetch the file again ({FETCH})") from error


def content_hash(root: Path, path: Path) -> str:
    """sha256 of a file below `root`: the ledger's, if the file is as it came, else computed."""
    entry = Ledger.load(root).files.get(path.relative_to(root).as_posix())
    there = path.stat()
    if entry and (entry.size, entry.mtime_ns) == (there.st_size, there.st_mtime_ns):
        return entry.sha256
    return sha256_file(path)


def _files(folder: Path, split: str) -> list[Path]:
    """All parts of a split: `SPLIT-00000-of-00002.parquet` and so on, or `SPLIT.parquet`."""
    parts = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    wanted = int(parts[0].stem.rsplit("-", 1)[1]) if parts else 1
    paths = parts or [path for path in [folder / f"{split}.parquet"] if path.is_file()]
    if not paths:
        there = sorted(
            {path.name.split("-")[0].removesuffix(".parquet") for path in folder.glob("*.parquet")}
        )
        found = f"it has {', '.join(there)}" if there else "there is nothing"
        raise UsageError(f"no split {split!r} in {folder} ({found}); fetch it: {FETCH}")
    if len(paths) != wanted:
        raise UsageError(f"{folder} has {len(paths)} of the {wanted} files of {split!r}; fetch it: {FETCH}")
    return paths


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet ({error}); fetch it again: {FETCH}") from error
    if table.column_names == ["train"]:  # MMLU's training rows stood in a column of that name for a time
        table = pa.Table.from_struct_array(table["train"])
    if missing := [name for name in columns if name not in table.column_names]:
        has = ", ".join(table.column_names)
        raise UsageError(f"{path} has no column {missing[0]!r}; it has {has}; fetch it again: {FETCH}")
    return table.select(list(columns))
