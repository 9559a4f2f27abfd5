"""An image that cannot carry a run is refused before anything is submitted, and the reason is named."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.image import REVISION, fault, labels


class Place:
    """A clone with one commit, a SIF that was built from it, and an Apptainer that tells the SIF's labels."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.bin, self.sif = folder / "clone", folder / "bin", folder / "nanochat.sif"
        for name in ("pyproject.toml", "env/locks/cpu.txt", "rustbpe/src/lib.rs", "nanochat/gpt.py"):
            (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
            (self.clone / name).write_text(name)
        self.git("init", "-q")
        self.commit()
        self.bin.mkdir()
        self.sif.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + b"\0" * 64)
        self.label({REVISION: self.git("rev-parse", "HEAD").strip(), "nanochat.torch": "2.13.0"})

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(self.clone), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def label(self, found: dict[str, str]) -> None:
        said = json.dumps({"data": {"attributes": {"labels": found}}, "type": "container"})
        program = self.bin / "apptainer"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        program.chmod(0o755)

    def fault(self) -> str:
        return fault("apptainer", str(self.sif), self.clone)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(tmp_path)
    monkeypatch.setenv("PATH", str(found.bin), prepend=os.pathsep)
    return found


def test_an_image_of_this_clone_is_good(place: Place) -> None:
    assert labels(place.sif)["nanochat.torch"] == "2.13.0" and place.fault() == ""
    (place.clone / "nanochat" / "gpt.py").write_text("other code runs inside it, too")
    place.commit()
    assert place.fault() == ""


def lock_changed(place: Place) -> None:
    (place.clone / "env/locks/cpu.txt").write_text("torch==9")
    place.commit()


def rust_changed_in_the_tree(place: Place) -> None:
    (place.clone / "rustbpe/src/lib.rs").write_text("// not committed")
    (place.clone / "pyproject.toml").write_text("")


Spoil = Callable[[Place], object]
FAULTS: list[tuple[Spoil, str]] = [
    (lambda p: p.sif.unlink(), "nanochat.sif: No such file"),
    (lambda p: p.sif.write_bytes(b"x" * 99), "is no Apptainer image"),
    (lambda p: p.label({}), "does not say from which revision"),
    (lambda p: p.label({REVISION: "0" * 40}), "revision 000000000000, which this clone does not know"),
    (lock_changed, "; since then env/locks/cpu.txt changed"),
    (rust_changed_in_the_tree, "; since then pyproject.toml and 1 more changed"),
]


def test_a_clone_that_git_refuses_is_said_in_its_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GLOBAL", os.devnull), ("NOSYSTEM", "1"), ("COUNT", "0")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    said = place.fault()
    assert "dubious ownership" in said and "does not know" not in said
    assert said.endswith(f"git config --global --add safe.directory {place.clone}")


@pytest.mark.parametrize(("spoil", "text"), FAULTS)
def test_an_image_that_will_not_do_is_named(place: Place, spoil: Spoil, text: str) -> None:
    spoil(place)
    assert text in place.fault()


def test_where_nothing_can_be_compared(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fault("none", "", place.clone) == "" and fault("pyxis", "", None) == "IMAGE is not set"
    assert fault("pyxis", "nvcr.io#x/y:1", None) == "" and fault("environment", "ours", None) == ""
    monkeypatch.setenv("PATH", str(place.clone))
    assert place.fault() == ""  # a login node without Apptainer
    assert "apptainer is not on PATH of this node" in fault("apptainer", str(place.sif), None)
