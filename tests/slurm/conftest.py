"""One lab for all tests of Slurm, and a user of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drive import User
from lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="nanochat-lab-"))  # short: it holds sockets
    folder.chmod(0o755)  # munge wants its socket to be reachable by all
    cluster = Lab(folder)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def user(lab: Lab, tmp_path: Path) -> Iterator[User]:
    place = tmp_path / "a user's folder"  # with a blank and a quote in its name
    place.mkdir()
    found = User(lab, place)
    yield found
    found.cancel_all()
