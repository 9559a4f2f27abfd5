"""One file from its source to its place: resumed, verified, renamed; and the progress of many.

What it is: `bring`, safe with any number of processes on any filesystem: each writes to a name of its own,
a leftover is taken over by renaming it once its writer is gone, and size and hash decide before the file
gets its name (locks are not to be trusted on Lustre, GPFS or NFS). What it is not: the choice of files
(`fetch.py`). No torch. Run: `pytest tests/test_assets.py`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import secrets
import shutil
import socket
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nanochat.assets import Asset
from nanochat.common import UsageError, atomic_path, resolve, sha256_file
from nanochat.ledger import parquet_footer

ATTEMPTS = 5
ABANDONED_S = 600.0  # a half-done file of another machine that nobody has written to for so long is free
CHUNK = 1 << 20
MAX_UNPACKED = 8 << 30


@dataclass(frozen=True)
class Remote:
    """A file at its source. `where` is a URL or the path of a file."""

    asset: Asset
    path: str
    where: str
    size: int | None
    revision: str | None = None
    sha256: str | None = None
    git_sha1: str | None = None  # what the hub knows of files that are not in LFS
    etag: str | None = None

    @property
    def place(self) -> str:
        """Where it goes, below the base folder; a zip goes beside the folder that takes its files."""
        if self.asset.unpack:
            return self.asset.target.rstrip("/") + ".zip"
        return self.asset.place if self.asset.is_one_file else self.asset.target + self.path

    @property
    def tag(self) -> str:
        """Names the content, so that nothing is resumed from other content."""
        known = self.sha256 or self.git_sha1 or self.etag or f"{self.where} {self.size}"
        return hashlib.sha256(known.encode()).hexdigest()[:12]


class Progress:
    """Bytes and files so far; `tell` prints a line at most every so often."""

    def __init__(self, total: int, files: int, say: Callable[[str], None]) -> None:
        self.total, self.files, self._say = total, files, say
        self.done = self.whole = self._fresh = 0
        self._lock, self._started = threading.Lock(), time.monotonic()
        self._every_s = 2.0 if sys.stdout.isatty() else 15.0
        self._next = self._started + self._every_s
        self._stopped = False

    now = staticmethod(time.monotonic)

    def add(self, count: int, is_fresh: bool = True) -> None:
        """Count bytes; those that were here before say nothing about the speed."""
        if self._stopped:
            raise InterruptedError("the fetch was stopped")
        with self._lock:
            self.done += count
            self._fresh += count if is_fresh else 0

    def take_back(self, count: int) -> None:
        """Count bytes off again that are to be counted anew."""
        with self._lock:
            self.done -= count

    def finish_one(self) -> None:
        with self._lock:
            self.whole += 1

    def stop(self) -> None:
        self._stopped = True

    def tell(self, final: bool = False) -> None:
        if not final and self.now() < self._next:
            return
        self._next = self.now() + self._every_s
        seconds = max(1e-3, self.now() - self._started)
        speed = self._fresh / seconds
        left = (self.total - self.done) / speed if speed else float("inf")
        eta = "" if final else f", ETA {left / 60:.0f} min" if left < 6e5 else ", ETA unknown"
        self._say(
            f"{self.whole}/{self.files} files, {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, "
            f"{speed / 1e6:.1f} MB/s{eta}"
        )


Brought = tuple[Remote, list[tuple[str, str, str]]]


def bring(root: Path, remote: Remote, twins: dict[str, Path], progress: Progress) -> Brought:
    """The file in its place, verified; returns (place, path at the source, sha256) of all that it became."""
    target = resolve(root, remote.place)
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256 = _adopted(remote, target, twins, progress) or _downloaded(remote, target, progress)
    progress.finish_one()
    if not remote.asset.unpack:
        return remote, [(remote.place, remote.path, sha256)]
    files = list(unpack(target, root, remote.asset.target))
    target.unlink()
    return remote, files


def _adopted(remote: Remote, target: Path, twins: dict[str, Path], progress: Progress) -> str | None:
    """The file's hash if it is here already: in its place, unrecorded, or elsewhere below the base folder."""
    twin = twins.get(remote.sha256 or "")
    for here in (target, twin):
        if here is None or not here.is_file() or here.stat().st_size != remote.size:
            continue
        sha256 = _right_hash(here, remote)
        if sha256 is None or not (remote.sha256 or remote.git_sha1):
            continue
        if here != target:
            with atomic_path(target) as temp:
                os.link(here, temp)
        progress.add(remote.size or 0, is_fresh=False)
        return sha256
    return None


def _right_hash(path: Path, remote: Remote) -> str | None:
    """The file's sha256, or None if it is not what the source promised."""
    if remote.git_sha1 is not None:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        digest.update(path.read_bytes())
        if digest.hexdigest() != remote.git_sha1:
            return None
    sha256 = sha256_file(path)
    return sha256 if remote.sha256 in (None, sha256) else None


# ----------------------------------------------------------------------------- half-done files


def _part_names(target: Path, tag: str) -> list[Path]:
    return sorted(target.parent.glob(f".{target.name}.{tag}.*.part"))


def here(root: Path, remote: Remote) -> int:
    """Bytes of the file that lie on the disk already: all of them, or those of its largest half-done copy."""
    target = resolve(root, remote.place)
    if target.is_file() and target.stat().st_size == remote.size:
        return remote.size
    return max((path.stat().st_size for path in _part_names(target, remote.tag)), default=0)


def _claim_part(target: Path, remote: Remote) -> Path:
    """A name of our own to write to, on which the largest abandoned leftover lies, if there is one."""
    own = f".{target.name}.{remote.tag}.{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(4)}.part"
    part = target.with_name(own)
    free = [path for path in _part_names(target, remote.tag) if _is_abandoned(path)]
    for path in sorted(free, key=lambda path: -path.stat().st_size):
        try:
            os.rename(path, part) if not part.exists() else path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
    return part


def _is_abandoned(path: Path) -> bool:
    host, pid, _ = path.name.removesuffix(".part").rsplit("~", 2)
    if host.endswith(f".{socket.gethostname()}"):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        else:
            if int(pid) == os.getpid():
                return True  # an earlier attempt of this process: each file has one thread
    return time.time() - path.stat().st_mtime > ABANDONED_S


# ----------------------------------------------------------------------------- the download


def _downloaded(remote: Remote, target: Path, progress: Progress) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        part = _claim_part(target, remote)
        try:
            _get(remote, part, progress)
            sha256 = _right_hash(part, remote)
            if sha256 is None:
                progress.take_back(part.stat().st_size)
                part.unlink()
                raise OSError(f"{remote.where}: what came is not what the source promised (its hash differs)")
            if target.suffix == ".parquet":
                parquet_footer(part)
            with atomic_path(target) as temp:
                os.replace(part, temp)
            return sha256
        except (InterruptedError, UsageError):
            raise
        except Exception as error:
            _give_up_or_wait(error, remote, attempt)
    raise AssertionError("unreachable")


def _give_up_or_wait(error: Exception, remote: Remote, attempt: int) -> None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        raise error
    if attempt == ATTEMPTS or status in (401, 403, 404):
        reason = f"HTTP {status}" if status else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{remote.where} could not be fetched ({reason}; {attempt} attempts); run the same command "
            "again, which goes on where this one stopped"
        ) from error
    time.sleep(min(30.0, 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))


def _get(remote: Remote, part: Path, progress: Progress) -> None:
    """The rest of the file, appended to what `part` holds."""
    have = part.stat().st_size if part.exists() else 0
    if remote.size is None or have > remote.size:
        have = 0
    with open(part, "r+b" if part.exists() else "w+b") as file:
        file.truncate(have)
        file.seek(have)
        progress.add(have, is_fresh=False)
        counted = _Counted(file, progress, have)
        try:
            if remote.where.startswith("/"):
                _copy(Path(remote.where), counted, have)
            elif have != remote.size:
                _http(remote, counted, have)
        except BaseException:
            progress.take_back(counted.count)  # the next attempt counts what is kept
            raise
        if remote.size is not None and file.tell() != remote.size:
            progress.take_back(counted.count)
            raise OSError(f"{remote.where}: {file.tell():,} bytes came instead of {remote.size:,}")


def _copy(source: Path, file: _Counted, have: int) -> None:
    with open(source, "rb") as stream:
        stream.seek(have)
        while chunk := stream.read(CHUNK):
            file.write(chunk)


def _http(remote: Remote, file: _Counted, have: int) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # the hub's token, if the user has one, goes to the hub alone
    headers = build_hf_headers() if remote.revision else {}
    stream: Any = file
    http_get(remote.where, stream, resume_size=have, headers=headers, expected_size=remote.size)


class _Counted:
    """A file that counts what is written to it; the rest is the file's."""

    def __init__(self, file: IO[bytes], progress: Progress, have: int) -> None:
        self._file, self._progress, self.count = file, progress, have

    def write(self, chunk: bytes) -> int:
        self._progress.add(len(chunk))
        self.count += len(chunk)
        return self._file.write(chunk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


# ----------------------------------------------------------------------------- archives


def unpack(archive: Path, root: Path, folder: str) -> Iterator[tuple[str, str, str]]:
    """Unpack a zip into `folder`, without the one top folder that its files may share."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = [member for member in bundle.infolist() if not member.is_dir()]
            _refuse_hostile(archive, members)
            tops = {PurePosixPath(member.filename).parts[0] for member in members}
            nested = len(tops) == 1 and all("/" in member.filename for member in members)
            for member in members:
                inside = PurePosixPath(member.filename)
                place = f"{folder}{inside.relative_to(next(iter(tops))) if nested else inside}"
                target = resolve(root, place)
                with atomic_path(target) as temp, open(temp, "wb") as file, bundle.open(member) as stream:
                    shutil.copyfileobj(stream, file, CHUNK)
                yield place, member.filename, sha256_file(target)
    except zipfile.BadZipFile as error:
        raise UsageError(f"{archive} is no whole zip file ({error}); delete it and fetch again") from error


def _refuse_hostile(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    paths = [PurePosixPath(name) for name in names]
    odd = [str(p) for p in paths if p.is_absolute() or ".." in p.parts or "\\" in str(p)]
    odd += [m.filename for m in members if stat.S_ISLNK(m.external_attr >> 16)]
    odd += [name for name in names if names.count(name) > 1]
    if odd:
        raise UsageError(
            f"{archive} holds {odd[0]!r}, which would leave its folder or replace a file: refused"
        )
    if sum(member.file_size for member in members) > MAX_UNPACKED:
        raise UsageError(f"{archive} would unpack to more than {MAX_UNPACKED >> 30} GiB: refused")
