"""One lab for all tests of Slurm, and a user of it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drive import User
from lab import ACCOUNTED, Lab, Spec, missing


@contextlib.contextmanager
def running(spec: Spec) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="nanochat-lab-"))  # short: it holds sockets
    folder.chmod(0o755)  # munge wants its socket to be reachable by all
    cluster = Lab(folder, spec)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with running(Spec()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def lab_with_accounts() -> Iterator[Lab]:
    """Its accounts and QOS are enforced; the test that takes it says what else it is (`reshape`)."""
    if missing(accounting=True):
        pytest.skip("no slurmdbd, no MariaDB: as root, python tests/slurm/lab.py install")
    with running(ACCOUNTED) as cluster:
        yield cluster


@pytest.fixture
def user(lab: Lab, tmp_path: Path) -> Iterator[User]:
    place = tmp_path / "a user's folder"  # with a blank and a quote in its name
    place.mkdir()
    found = User(lab, place)
    yield found
    found.cancel_all()
