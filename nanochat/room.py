"""How much a folder can still take: free bytes and inodes of its filesystem, and what the quota leaves.

What it is: `room(path)`, from statvfs and, where the site has them, `lfs quota` and `quota`, each with a time
limit. What it is not: a judgement; `fetch.py` and `preflight.py` compare it with what a run needs. No torch.
How to look at it: `python -m scripts.preflight`, or `pytest tests/test_preflight.py -k quota`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

COMMAND_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Room:
    """What is left; None where nobody knows (no quota, or no command that tells)."""

    free_bytes: int | None
    free_files: int | None
    quota_bytes: int | None
    quota_files: int | None

    @property
    def bytes(self) -> int | None:
        known = [n for n in (self.free_bytes, self.quota_bytes) if n is not None]
        return min(known) if known else None


def room(path: Path) -> Room:
    """What `path`, or the nearest folder above it that exists, can still take."""
    there = nearest(path)
    facts = os.statvfs(there)
    # Filesystems that make inodes as they go (btrfs, some Lustre) say 0 of 0.
    files = facts.f_favail if facts.f_files else None
    return Room(facts.f_bavail * facts.f_frsize, files, *_quota(there))


def nearest(path: Path) -> Path:
    """The nearest folder at or above `path` that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _quota(there: Path) -> tuple[int | None, int | None]:
    for command in (["lfs", "quota", "-q", "-u", user(), str(there)], ["quota", "-w", "-f", mount_of(there)]):
        if shutil.which(command[0]) and (text := output(command)):
            left = parse_quota(text)
            if left != (None, None):
                return left
    return None, None


def user() -> str:
    """The account that runs this, by its number: variables like USER may be unset in a job, or another's."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container that does not know it
        return str(os.getuid())


def output(command: list[str]) -> str | None:
    """What a command prints, or None where it is absent, fails, or does not answer in time."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True, env=env,
            stdin=subprocess.DEVNULL, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout


def mount_of(path: Path) -> str:
    """The mount point that holds `path`."""
    path = path.resolve()
    return str(next(folder for folder in (path, *path.parents) if os.path.ismount(folder)))


def parse_quota(text: str) -> tuple[int | None, int | None]:
    """(bytes, files) left, from the first line of figures of `quota -w` or `lfs quota`; None: no limit.

    Both print: filesystem, KiB used, soft limit, hard limit, [grace,] files, soft, hard, [grace]. A star
    marks what is over its soft limit; a limit of 0 is none. The soft limit counts: beyond it days are few.
    """
    for line in text.splitlines():
        words = line.split()
        for figures in (words[1:], words):  # after a filesystem, or after one that took a line of its own
            if len(figures) >= 6 and all(_number(word) is not None for word in figures[:3]):
                return _left(figures)
    return None, None


def _left(words: list[str]) -> tuple[int | None, int | None]:
    # A grace column stands after the space figures if it is not a number: "-", "6days", "none".
    files = words[3:] if _number(words[3]) is not None else words[4:]
    return _below(words[:3], 1024), _below(files[:3], 1)


def _below(figures: list[str], unit: int) -> int | None:
    used, *limits = [_number(word) or 0 for word in figures]
    limits = [limit for limit in limits if limit]
    return max(0, min(limits) - used) * unit if limits else None


def _number(word: str) -> int | None:
    digits = word.strip("*[]")
    return int(digits) if digits.isdigit() else None
