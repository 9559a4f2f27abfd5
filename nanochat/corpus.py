"""Text to train a tokenizer on: the training shards of a data folder, or folders with shares (no torch).

What it is not: the order in which a model sees documents (`dataloader.py`). How to use it:
`python -m scripts.tok_train --sources wiki=45,books=40,forum=15`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.common import resolve, sha256_file
from nanochat.dataset import iter_texts, list_shards, load_manifest, read_documents, source_files


@dataclass(frozen=True)
class TextSource:
    """A folder of texts. `documents` is how many it has, `fingerprint` stands for all of their content."""

    name: str
    share: float
    documents: int
    fingerprint: str
    texts: Callable[[], Iterator[str]]


def parse_shares(sources: str) -> dict[str, float]:
    """`wiki=45,books=40` as {folder: share}, the shares summing to 1. ValueError for anything else."""
    shares: dict[str, float] = {}
    for part in filter(None, map(str.strip, sources.split(","))):
        name, _, number = part.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not name or not 0 < share < math.inf or name in shares:
            raise ValueError(
                f"sources {part!r}: write FOLDER=SHARE,FOLDER=SHARE,... with each folder once and "
                "shares above 0, for example wiki=45,books=40,forum=15"
            )
        shares[name] = share
    if not shares:
        raise ValueError("sources is empty: name at least one FOLDER=SHARE")
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def open_source(root: Path, name: str, share: float) -> TextSource:
    """The folder `name` below `root`: its training shards, or else all its text files. ValueError if none."""
    folder = resolve(root, name)
    try:
        list_shards(folder)
    except ValueError:
        return _files_source(name, share, folder)
    manifest = load_manifest(folder, verify=False)
    shards = manifest.split("train")
    rows = sum(shard.rows for shard in shards)
    return TextSource(name, share, rows, manifest.fingerprint, lambda: iter_texts(shards))


def _files_source(name: str, share: float, folder: Path) -> TextSource:
    if not folder.is_dir():
        raise ValueError(f"sources: there is no folder {folder}")
    files = source_files(folder)

    def texts() -> Iterator[str]:
        return (text for path in files for text in read_documents(path))

    facts = "".join(f"{path.relative_to(folder)} {sha256_file(path)}\n" for path in files)
    return TextSource(name, share, sum(1 for _ in texts()), hashlib.sha256(facts.encode()).hexdigest(), texts)


def mixed(sources: Sequence[TextSource], max_doc_chars: int) -> Iterator[tuple[TextSource, str]]:
    """Documents with their source, such that the characters read of each stay in the sources' shares.

    The next document comes from the source that is furthest behind; it ends when that one has no more, so
    the shares hold to within a document. Of each document `max_doc_chars` characters count.
    """
    streams = [source.texts() for source in sources]
    taken = [0.0] * len(sources)
    while True:
        behind = min(range(len(sources)), key=lambda i: taken[i])
        text = next(streams[behind], None)
        if text is None:
            return
        taken[behind] += min(len(text), max_doc_chars) / sources[behind].share
        yield sources[behind], text
