"""The data of a stage on the node's own disk: copied once, checked, given up where it does not fit.

What it is: `stage_in`, called on each node before training when the site says STAGE_LOCAL=1. What it is not:
needed; whoever has no room reads the shared folder, and the tokens are the same. Run: `pytest
tests/test_launch_node.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nanochat.common import atomic_path

ROOM = 1.05  # free space asked for, as a multiple of what is copied


def stage_in(source: Path, scratch: str) -> Path:
    """The folder to read from: a copy of `source` below `scratch`, or `source` itself, and says why."""
    place = Path(os.path.expandvars(scratch))
    try:
        files = [path for path in sorted(source.iterdir()) if path.is_file()]
        missing = [path for path in files if not _same(path, place / "nanochat" / source.name / path.name)]
        need, free = sum(path.stat().st_size for path in missing), shutil.disk_usage(place).free
        if "$" in str(place) or free < ROOM * need:
            print(
                f"stage-in: {place} has {free >> 20} MiB free and {need >> 20} are needed: reading {source}"
            )
            return source
        for path in missing:
            with atomic_path(place / "nanochat" / source.name / path.name) as temp:
                shutil.copy2(path, temp)
    except OSError as error:
        print(f"stage-in: {error}: reading {source}")
        return source
    print(f"stage-in: {len(missing)} of {len(files)} files ({need >> 20} MiB) copied to {place}", flush=True)
    return place / "nanochat" / source.name


def _same(one: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    a, b = one.stat(), other.stat()
    return (a.st_size, int(a.st_mtime)) == (b.st_size, int(b.st_mtime))
