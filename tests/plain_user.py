"""A plain user's place, for tests of Apptainer outside `tests/containers`, and the SIF that they share.

What it is: `image()`, the SIF that NANOCHAT_TEST_SIF names, or that of the images which NANOCHAT_IMAGE_DIR
keeps; `folder()`, a place of the user; `run(words, folder)`, as root by `as_user.sh`. What it is not: the
tools and the builds (`image_lab.py`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import image_lab
import pytest

PATHS = (f"{image_lab.PREFIX}/usr/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
LIMIT_S = 900


def image() -> Path:
    """The SIF, which is made if it is not there; skips where none can be had, or run."""
    if not shutil.which("apptainer", path=":".join(PATHS)):
        pytest.skip("no apptainer: as root, bash tests/containers/install.sh")
    if name := os.environ.get("NANOCHAT_TEST_SIF"):
        return Path(name).resolve()
    if not (kept := os.environ.get("NANOCHAT_IMAGE_DIR")):
        pytest.skip("neither NANOCHAT_TEST_SIF nor NANOCHAT_IMAGE_DIR is set")
    if reason := image_lab.missing() or image_lab.no_torch():
        pytest.skip(reason)
    return image_lab.Lab(Path(kept)).sif()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder of the user's, with a short path, since it may hold sockets."""
    place = Path(tempfile.mkdtemp(prefix="nanochat-box-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(image_lab.USER)
            os.chown(place, owner.pw_uid, owner.pw_gid)
        place.chmod(0o755)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run(words: list[str], place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as the user in `place`, which is home, too, with these variables and few others."""
    env = {
        "PATH": ":".join(PATHS), "HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1",
        "APPTAINER_TMPDIR": str(place), "APPTAINER_CACHEDIR": f"{place}/apptainer",
        # the clone belongs to somebody else
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*", **variables,
    }  # fmt: skip
    command = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *words]
    if os.geteuid() == 0:
        command = ["bash", str(image_lab.SCRIPTS / "as_user.sh"), str(place), *command]
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
