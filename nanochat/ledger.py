"""The files that are here: `assets.json` below the base folder, and their check against it.

What it is: `Ledger`, with source, revision, size, sha256, time and Parquet footer of every file, hashed once,
when it came; and `check`, which compares size, time and footer (a millisecond a file) or, with `verify`,
hashes again. What it is not: which files a run needs (`assets.py`) or their getting (`fetch.py`).
No torch, no network, no pyarrow. Run: `python -m scripts.preflight --verify`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nanochat.assets import Asset
from nanochat.common import UsageError, read_json, resolve, sha256_file, write_json

LEDGER = "assets.json"
FETCH = "python -m scripts.download_data"
THREADS = 16  # of a check: on a network filesystem each file costs round trips, not computing


@dataclass(frozen=True)
class Entry:
    """A file that is here: where it came from, and what it is."""

    asset: str
    source: str
    revision: str | None  # commit on the hub; None for a URL, a folder, or what was made here
    path: str
    size: int
    sha256: str
    mtime_ns: int | None
    footer: str | None  # sha256 of a Parquet footer


@dataclass
class Ledger:
    """`assets.json`: entries by place below the base folder, pinned revisions, files of each pattern."""

    root: Path
    files: dict[str, Entry] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    assets: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path) -> Ledger:
        path = root / LEDGER
        if not path.is_file():
            return cls(root)
        stored = read_json(path)
        try:
            files = {place: Entry(**entry) for place, entry in stored["files"].items()}
            return cls(root, files, stored["revisions"], stored["assets"])
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{path} is no ledger ({error!r}); delete it, and `{FETCH}` makes it") from error

    def save(self) -> None:
        """Write it, with whatever another process has added meanwhile."""
        for _ in range(5):
            there = Ledger.load(self.root)
            for mine, theirs in zip(self._parts(), there._parts(), strict=True):
                mine.update({key: value for key, value in theirs.items() if key not in mine})
            files = {place: asdict(entry) for place, entry in sorted(self.files.items())}
            stored = {"version": 1, "revisions": self.revisions, "assets": self.assets, "files": files}
            write_json(self.root / LEDGER, stored)
            if self.files.keys() <= Ledger.load(self.root).files.keys():
                return

    def _parts(self) -> tuple[dict[str, Any], ...]:
        return self.files, self.revisions, self.assets

    def add(self, place: str, asset: str, source: str, revision: str | None, path: str, sha256: str) -> None:
        """Take up a file whose content is known to be `sha256`."""
        there = resolve(self.root, place)
        facts = there.stat()
        footer = parquet_footer(there) if there.suffix == ".parquet" else None
        self.files[place] = Entry(
            asset, source, revision, path, facts.st_size, sha256, facts.st_mtime_ns, footer
        )

    def record(self, places: Iterable[str], maker: str) -> None:
        """Take up files that were made here: hash them once, and write the ledger."""
        for place in places:
            self.add(place, maker, "", None, Path(place).name, sha256_file(resolve(self.root, place)))
        self.save()


def parquet_footer(path: Path) -> str:
    """sha256 of a Parquet file's footer. ValueError if the file does not end as one does."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_536))
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little")
        if size < 12 or tail[-4:] != b"PAR1" or length + 12 > size:
            raise ValueError(f"{path} does not end like a Parquet file")
        if length + 8 > len(tail):
            file.seek(size - length - 8)
            tail = file.read()
    return hashlib.sha256(tail[-length - 8 :]).hexdigest()


# ----------------------------------------------------------------------------- the check

Kind = Literal["missing", "empty folder", "unlisted", "size", "footer", "time", "hash"]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, or with an asset that has none."""

    kind: Kind
    asset: Asset
    place: str
    text: str

    @property
    def remedy(self) -> str:
        if not self.asset.source:
            return f"make it: {self.asset.maker}"
        if self.kind == "time":
            return "python -m scripts.preflight --verify"
        return FETCH + (" (it replaces the file)" if self.kind in ("size", "footer", "hash") else "")


def check(root: Path, assets: Iterable[Asset], verify: bool = False) -> list[Fault]:
    """Every fault of the plan's files, compared with the ledger; `verify` hashes them again."""
    ledger = Ledger.load(root)
    faults: list[Fault] = []
    work: list[tuple[Asset, str, Entry | None]] = []
    for asset in assets:
        expected = list(_expected(ledger, asset))
        work += expected
        faults += [] if expected else [_absent(root, asset)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda one: _fault(root, one[0], one[1], one[2], verify), work))
    faults += [fault for fault in found if fault is not None]
    if verify:
        _remember_times(ledger, [one[1] for one, fault in zip(work, found, strict=True) if fault is None])
    return faults


def _expected(ledger: Ledger, asset: Asset) -> Iterator[tuple[Asset, str, Entry | None]]:
    """(asset, place, what the ledger says) of each file that the asset stands for."""
    places = [asset.place] if asset.is_one_file else ledger.assets.get(asset.name, [])
    yield from ((asset, place, ledger.files.get(place)) for place in places)
    manifest = resolve(ledger.root, asset.place)
    if not asset.source and manifest.name == "manifest.json" and manifest.is_file():
        for shard in read_json(manifest)["shards"]:  # of a data folder: it says itself what it holds
            place = str(Path(asset.place).with_name(shard["name"]))
            entry = Entry(asset.name, "", None, shard["name"], shard["bytes"], shard["sha256"], None, None)
            yield asset, place, entry


def _absent(root: Path, asset: Asset) -> Fault:
    """An asset that the ledger does not know; a folder that stands there has deceived people before."""
    folder = resolve(root, asset.target) / Path(asset.path).parent
    if folder.is_dir() and not any(folder.iterdir()):
        text = f"{asset.name}: the folder {folder} is there, but it is empty"
        return Fault("empty folder", asset, str(folder), text)
    others = ", though its folder is there with other files" if folder.is_dir() else ""
    return Fault("missing", asset, str(folder), f"{asset.name} was never fetched{others} ({asset.source})")


def _fault(root: Path, asset: Asset, place: str, entry: Entry | None, verify: bool) -> Fault | None:
    path = resolve(root, place)
    try:
        facts = path.stat()
    except OSError:
        deceives = path.parent.is_dir() and not any(path.parent.iterdir())
        text = f"{asset.name}: {path} is missing" + (" and its folder is empty" if deceives else "")
        return Fault("empty folder" if deceives else "missing", asset, place, text)
    if entry is None:
        text = f"{asset.name}: {path} is not in {LEDGER}, so nobody has verified it"
        return Fault("unlisted", asset, place, text) if asset.source else None
    if facts.st_size != entry.size:
        text = f"{asset.name}: {path} has {facts.st_size:,} bytes instead of {entry.size:,}"
        return Fault("size", asset, place, text)
    if path.suffix == ".parquet" and not _has_footer(path, entry.footer):
        return Fault("footer", asset, place, f"{asset.name}: {path} has a damaged Parquet footer")
    if verify:
        if sha256_file(path) != entry.sha256:
            return Fault("hash", asset, place, f"{asset.name}: {path} has another sha256 than when it came")
    elif entry.mtime_ns not in (None, facts.st_mtime_ns):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.st_mtime))
        return Fault("time", asset, place, f"{asset.name}: {path} was written to after it came ({when})")
    return None


def _has_footer(path: Path, expected: str | None) -> bool:
    try:
        return parquet_footer(path) == expected or expected is None
    except (OSError, ValueError):
        return False


def _remember_times(ledger: Ledger, places: Iterable[str]) -> None:
    """A copied folder has other times; where the hashes have just agreed, these are right from now on."""
    for place in ledger.files.keys() & set(places):
        now = resolve(ledger.root, place).stat().st_mtime_ns
        ledger.files[place] = replace(ledger.files[place], mtime_ns=now)
    if ledger.files and os.access(ledger.root, os.W_OK):
        ledger.save()
