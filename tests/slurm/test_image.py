"""The stages of a run inside a real SIF, started by a real Slurm, as a plain user.

NANOCHAT_TEST_SIF names the image (`tests/containers` builds one); it must be from this clone. As root the
whole lab becomes the user CONTAINER_USER's (default: ctest), in a mount namespace with its own fuse device.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent
USER = os.environ.get("CONTAINER_USER", "ctest")
PATHS = ("/opt/apptainer/usr/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
HOST = ("cyclopts", "psutil")  # all that the launcher and the bodies of jobs need
FUSE = '[ -c "$0" ] || mknod -m 666 "$0" c 10 229; mount --bind "$0" /dev/fuse; exec su "$1" -c "$2"'
pytestmark = [pytest.mark.slurm, pytest.mark.container]


@pytest.fixture
def image() -> Path:
    name = os.environ.get("NANOCHAT_TEST_SIF")
    if not name:
        pytest.skip("NANOCHAT_TEST_SIF names no image")
    if not shutil.which("apptainer", path=":".join(PATHS)):
        pytest.skip("no apptainer")
    return Path(name).resolve()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the plain user; short, since it holds sockets."""
    folder = Path(tempfile.mkdtemp(prefix="nanochat-box-"))
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam(USER)
        except KeyError:
            pytest.skip(f"no user {USER}, and Apptainer does not run as root everywhere: useradd -m {USER}")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def copy_package(name: str, target: Path, done: set[str]) -> None:
    """A package of this environment, and what it needs."""
    if name in done:
        return
    done.add(name)
    found = metadata.distribution(name)
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found.locate_file(file), target / file)
    for line in found.requires or ():
        wanted = Requirement(line)
        if not wanted.marker or wanted.marker.evaluate({"extra": ""}):
            copy_package(wanted.name, target, done)


def run_as_user(words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Run it as the plain user, where /dev/fuse can be opened by all; the machine itself stays as it is."""
    env = {
        "PATH": ":".join(PATHS), "HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{place}/packages:{ROOT}:{ROOT}/tests/slurm",
        "APPTAINER_TMPDIR": str(place), "APPTAINER_CACHEDIR": f"{place}/cache",
        # the clone belongs to somebody else
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
    }  # fmt: skip
    command = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *words]
    if os.geteuid() == 0:
        alone = ["unshare", "-m", "--propagation", "private", "bash", "-ec", FUSE]
        command = [*alone, f"/run/fuse.{USER}", USER, shlex.join(command)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=900)


def test_stages_run_inside_the_image(image: Path, place: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    recent = "import sys; assert sys.version_info >= (3, 10)"
    if python is None or run_as_user([python, "-c", recent], place).returncode:
        pytest.skip("the plain user has no Python 3.10 or newer")
    done: set[str] = set()
    for name in HOST:
        copy_package(name, place / "packages", done)
    assert "torch" not in done
    run = run_as_user([python, str(ROOT / "tests/slurm/in_image.py"), str(image), str(place)], place)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    found = json.loads(run.stdout.splitlines()[-1])
    assert "no.sif: No such file" in found["absent"] and "remedy: build it" in found["absent"]
    assert {"world", "tokenizer", "base"} <= found["status"].keys()
    assert set(found["status"].values()) == {"done"}, f"{found['status']}\n{found['log']}"
    assert not found["host_has_torch"] and "2 rank(s)" in found["log"]
    assert "on your own machine: ssh" in found["served"] and "\nended\n" in found["served"]
    record, versions = found["environment"], found["environment"]["versions"]
    assert record["commit"] == found["code"]["commit"]
    print(f"torch {versions['torch']} on Python {versions['python']}, in {image}")
