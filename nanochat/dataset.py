"""Folders of text shards: names, manifest, reading and writing (no torch).

A data folder holds `shard_00000.parquet`, `shard_00001.parquet`, ..., each with a `text` column in row groups
of about 1,024 documents, and `manifest.json`: rows, row groups, bytes, sha256 and split of every shard. The
manifest decides what a run reads, so shards that arrive later never change a run that has begun. The last
shard is the validation split unless the manifest says otherwise.

What it is not: a downloader, a cleaner, or the order in which documents are trained on (`dataloader.py`).
How to make such a folder from your own files: `python -m scripts.prepare_data --source FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import atomic_path, read_json, sha256_file, write_json

Split = Literal["train", "val"]
MANIFEST = "manifest.json"
PREPARING = "preparing.json"  # stands in the folder while shards are written; a leftover means "interrupted"
ROWS_PER_GROUP = 1024
SHARD_NAME = re.compile(r"shard_\d{5,}\.parquet")
SOURCE_SUFFIXES = (".jsonl", ".md", ".parquet", ".txt")


@dataclass(frozen=True)
class Shard:
    """One Parquet file. `row_groups` holds the number of documents of each row group."""

    path: Path
    rows: int
    row_groups: tuple[int, ...]
    bytes: int
    sha256: str
    split: Split

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Manifest:
    """What a data folder holds; `origin` says what it was made from (empty if unknown)."""

    directory: Path
    shards: tuple[Shard, ...]
    origin: dict[str, Any] = field(default_factory=dict)

    def split(self, split: Split) -> list[Shard]:
        return [shard for shard in self.shards if shard.split == split]

    def unlisted(self) -> list[str]:
        """Shards that lie in the folder but are not read, because the manifest does not name them."""
        return sorted({p.name for p in _shard_files(self.directory)} - {s.name for s in self.shards})

    @property
    def fingerprint(self) -> str:
        """sha256 of all names, contents and splits: equal fingerprints mean equal data."""
        facts = [[s.name, s.sha256, s.split] for s in self.shards]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# ----------------------------------------------------------------------------- which shards


def list_shards(directory: Path) -> list[Path]:
    """The shard files in `directory`, in order. ValueError if there is none."""
    shards = _shard_files(directory)
    if not shards:
        raise ValueError(
            f"no shard_00000.parquet, shard_00001.parquet, ... in {directory}; "
            "make them with `python -m scripts.prepare_data`, or set --data-dir to the folder that has them"
        )
    return shards


def split_shards(directory: Path) -> tuple[list[Shard], list[Shard]]:
    """(training shards, validation shards) as the manifest names them; it is made on first use."""
    manifest = load_manifest(directory, verify=False)
    return manifest.split("train"), manifest.split("val")


def load_manifest(directory: Path, verify: bool = True) -> Manifest:
    """The folder's manifest, checked against the files; it is made (and written) on first use.

    Names and sizes are always checked; `verify=True` hashes every shard, too (about 1 s a GB).
    ValueError, naming the shard and the remedy, if one is missing, damaged, or there are too few.
    """
    if (directory / PREPARING).exists():
        raise ValueError(
            f"{directory} holds an unfinished data set ({PREPARING} is there): writing it was interrupted "
            "or is still going on; run the same command again to finish it"
        )
    if not (directory / MANIFEST).exists():
        return _manifest_on_first_use(directory)
    manifest = _parse_manifest(directory)
    for shard in manifest.shards:
        _check_shard(shard, verify)
    return manifest


def _shard_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if SHARD_NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(re.sub(r"\D", "", p.name)))


def _manifest_on_first_use(directory: Path) -> Manifest:
    paths = list_shards(directory)
    shards = [inspect_shard(path, "val" if path == paths[-1] else "train") for path in paths]
    manifest = Manifest(directory, _check_splits(directory, shards))
    if _is_writable(directory):  # a read-only data folder works as well, it is only hashed each time
        save_manifest(manifest)
    return manifest


def _is_writable(directory: Path) -> bool:
    """Root may write anywhere, so the folder's own mode counts, too."""
    return os.access(directory, os.W_OK) and bool(directory.stat().st_mode & 0o222)


def manifest_names(directory: Path) -> set[str]:
    """Names of the shards in the folder's manifest, unchecked; none if it has no manifest yet."""
    if not (directory / MANIFEST).is_file():
        return set()
    return {shard.name for shard in _parse_manifest(directory).shards}


def save_manifest(manifest: Manifest) -> None:
    """Write `manifest.json` beside the shards."""
    shards = [{"name": shard.name, **asdict(shard)} for shard in manifest.shards]
    for shard in shards:
        del shard["path"]  # the folder may move
    write_json(manifest.directory / MANIFEST, {"version": 1, "shards": shards, "origin": manifest.origin})


def _parse_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    try:
        stored = read_json(path)
        shards = [
            Shard(directory / s.pop("name"), **{**s, "row_groups": tuple(s["row_groups"])})
            for s in stored["shards"]
        ]
        origin = stored["origin"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error!r}); delete it, and it is made anew") from error
    return Manifest(directory, _check_splits(directory, shards), origin)


def _check_splits(directory: Path, shards: list[Shard]) -> tuple[Shard, ...]:
    train = sum(shard.split == "train" for shard in shards)
    if not 0 < train < len(shards):
        raise ValueError(
            f"{directory} has {train} training and {len(shards) - train} validation shards and needs at "
            "least one of each: the last shard is the validation split, so fetch or write two or more"
        )
    return tuple(shards)


def _check_shard(shard: Shard, verify: bool) -> None:
    path = shard.path
    if not path.exists():
        raise ValueError(
            f"{path} is missing, although {MANIFEST} lists it; fetch it again, or delete "
            f"{path.parent / MANIFEST} to use the shards that are there (as another data set: runs begun "
            "with the old one cannot be resumed)"
        )
    size = path.stat().st_size
    if size != shard.bytes:
        raise _damaged(path, f"{size:,} bytes instead of {shard.bytes:,}")
    if verify and sha256_file(path) != shard.sha256:
        raise _damaged(path, "its sha256 is not the manifest's")


def _damaged(path: Path, reason: object) -> ValueError:
    return ValueError(f"{path} is damaged ({reason}); delete it and fetch or write it again")


# ----------------------------------------------------------------------------- reading


def inspect_shard(path: Path, split: Split, sha256: str | None = None) -> Shard:
    """Rows, row groups, size and hash (if it is not known) of one Parquet file. ValueError if unusable."""
    with _open_parquet(path, "text") as file:
        groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
    return Shard(path, sum(groups), groups, path.stat().st_size, sha256 or sha256_file(path), split)


def read_row_group(path: Path, index: int, column: str = "text") -> list[str]:
    """The documents of row group `index`; a null is an empty document. ValueError if the file is damaged."""
    with _open_parquet(path, column) as file:
        try:
            texts = file.read_row_group(index, columns=[column]).column(column).to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error
    return [text or "" for text in texts]


def iter_texts(shards: Iterable[Shard]) -> Iterator[str]:
    """All documents of some shards, in the order in which they stand."""
    for shard in shards:
        for group in range(len(shard.row_groups)):
            yield from read_row_group(shard.path, group)


def _open_parquet(path: Path, column: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
        fields = {f.name: f.type for f in file.schema_arrow}
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; fetch or write it again") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    if not (column in fields and _is_text(fields[column])):
        file.close()
        found = ", ".join(f"{name} ({type_})" for name, type_ in fields.items()) or "none"
        raise ValueError(
            f"{path} has no text column {column!r}; its columns: {found}. Name the right one with "
            "`python -m scripts.prepare_data --text-column`"
        )
    return file


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


# ----------------------------------------------------------------------------- writing


def content_hash(text: str) -> int:
    """64 bits of the text's SHA-256: decides its split and its place in a shard, on any machine the same."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def write_shards(
    directory: Path,
    train: Iterable[str],
    val: Iterable[str],
    *,
    shard_mb: float = 100.0,
    origin: dict[str, Any] | None = None,
) -> Manifest:
    """Write documents as shards of `shard_mb` MB of text, then the manifest. `val` is read after `train`.

    Earlier shards in the folder are removed first. Documents change places within a shard (they are sorted
    by hash), so that neighbours in a row group do not all come from one file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / PREPARING, {"origin": origin or {}})
    (directory / MANIFEST).unlink(missing_ok=True)
    for stale in _shard_files(directory):
        stale.unlink()
    shards: list[Shard] = []
    sides: tuple[tuple[Split, Iterable[str]], ...] = (("train", train), ("val", val))
    for split, texts in sides:
        for chunk in _chunks(texts, int(shard_mb * 1e6)):
            path = directory / f"shard_{len(shards):05d}.parquet"
            _write_shard(path, sorted(chunk, key=content_hash))
            shards.append(inspect_shard(path, split))
    manifest = Manifest(directory, _check_splits(directory, shards), origin or {})
    save_manifest(manifest)
    (directory / PREPARING).unlink()
    return manifest


def _chunks(texts: Iterable[str], limit_bytes: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text.encode("utf-8", "replace"))
        if size >= limit_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _write_shard(path: Path, texts: list[str]) -> None:
    # Arrow strings are UTF-8, so what UTF-8 cannot hold (lone surrogates) becomes "?". From buffers, because
    # `pa.array` imports pandas where it is installed: 1.5 s for nothing.
    encoded = [text.encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    column = pa.LargeStringArray.from_buffers(len(encoded), *buffers)
    table = pa.Table.from_arrays([column], names=["text"])
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP, compression="zstd")


# ----------------------------------------------------------------------------- other people's files


def source_files(folder: Path) -> list[Path]:
    """The .txt, .md, .jsonl and .parquet files below `folder`, sorted by path. ValueError if none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOURCE_SUFFIXES and p.is_file())
    if not files:
        kinds = ", ".join(SOURCE_SUFFIXES)
        raise ValueError(f"no {kinds} file below {folder}; set --source to the folder of your texts")
    return files


def read_documents(path: Path, text_column: str = "text") -> Iterator[str]:
    """Documents of one file: a .txt or .md is one, each line of a .jsonl and each row of a .parquet, too."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with _open_parquet(path, text_column) as file:
            groups = file.num_row_groups
        for index in range(groups):
            yield from read_row_group(path, index, text_column)
        return
    try:
        if suffix == ".jsonl":
            yield from _read_jsonl(path, text_column)
        else:
            yield path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it, for example with iconv") from error


def _read_jsonl(path: Path, text_column: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {number} is not JSON ({error})") from error
            if not isinstance(record, dict) or not isinstance(record.get(text_column), str):
                raise ValueError(
                    f"{path} line {number} has no string under {text_column!r}; "
                    "name the right key with --text-column"
                )
            yield record[text_column]
