"""A plain user for tests of Apptainer, which does not run as root everywhere, and the image that they share.

What it is: `image()`, the SIF that NANOCHAT_TEST_SIF names (`tests/containers` builds one); `folder()`, a
place of the user; `run(words, folder)`, as root in a mount namespace with a fuse device for the user,
so that the machine stays as it is. What it is not: needed where the tests run as a plain user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = os.environ.get("CONTAINER_USER", "ctest")
PATHS = ("/opt/apptainer/usr/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
FUSE = '[ -c "$0" ] || mknod -m 666 "$0" c 10 229; mount --bind "$0" /dev/fuse; exec su "$1" -c "$2"'
LIMIT_S = 900


def image() -> Path:
    """The SIF; skips where there is none, or no Apptainer."""
    name = os.environ.get("NANOCHAT_TEST_SIF")
    if not name:
        pytest.skip("NANOCHAT_TEST_SIF names no image")
    if not shutil.which("apptainer", path=":".join(PATHS)):
        pytest.skip("no apptainer")
    return Path(name).resolve()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder of the user's, with a short path, since it may hold sockets."""
    place = Path(tempfile.mkdtemp(prefix="nanochat-box-"))
    try:
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam(USER)
            except KeyError:
                pytest.skip(
                    f"no user {USER}, and Apptainer does not run as root everywhere: useradd -m {USER}"
                )
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
        alone = ["unshare", "-m", "--propagation", "private", "bash", "-ec", FUSE]
        command = [*alone, f"/run/fuse.{USER}", USER, shlex.join(command)]
    return subprocess.run(
        command,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )
