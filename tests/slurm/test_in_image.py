"""The stages of a run inside a real SIF (`plain_user.image`), started by a real Slurm, as a plain user."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path

import plain_user
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = ("cyclopts", "psutil")  # all that the launcher and the bodies of jobs need
RECENT = "import sys; assert sys.version_info >= (3, 10)"
pytestmark = [pytest.mark.slurm, pytest.mark.container]


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


def test_stages_run_inside_the_image() -> None:
    image = plain_user.image()
    with plain_user.folder() as place:
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        if python is None or plain_user.run([python, "-c", RECENT], place).returncode:
            pytest.skip("the plain user has no Python 3.10 or newer")
        done: set[str] = set()
        for name in HOST:
            copy_package(name, place / "packages", done)
        assert "torch" not in done
        words = [python, str(ROOT / "tests/slurm/in_image.py"), str(image), str(place)]
        run = plain_user.run(words, place, PYTHONPATH=f"{place}/packages:{ROOT}:{ROOT}/tests/slurm")
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    found = json.loads(run.stdout.splitlines()[-1])
    assert "no.sif: No such file" in found["absent"] and "remedy: build it" in found["absent"]
    assert {"world", "tokenizer", "base"} <= found["status"].keys()
    assert set(found["status"].values()) == {"done"}, f"{found['status']}\n{found['log']}"
    assert not found["host_has_torch"] and "2 rank(s)" in found["log"]
    assert "on your own machine: ssh" in found["served"] and "\nended\n" in found["served"]
    assert " task 0: " not in found["served"], found["served"]  # srun's word for a step that failed
    record, versions = found["environment"], found["environment"]["versions"]
    assert record["commit"] == found["code"]["commit"]
    print(f"torch {versions['torch']} on Python {versions['python']}, in {image}")
