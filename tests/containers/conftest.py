"""One folder of images for all tests of containers: each is built once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_lab import Lab, no_torch


@pytest.fixture(scope="session")
def empty_lab() -> Iterator[Lab]:
    """The tools, and nothing built."""
    kept = os.environ.get("NANOCHAT_IMAGE_DIR")
    lab = Lab(Path(kept or tempfile.mkdtemp(prefix="nanochat-images-", dir="/var/tmp")))
    try:
        yield lab
    finally:
        if not kept:
            lab.close()


@pytest.fixture(scope="session")
def lab(empty_lab: Lab) -> Lab:
    """The same, on a machine that can build an image."""
    if reason := no_torch():
        pytest.skip(reason)
    return empty_lab


@pytest.fixture(scope="session")
def image(lab: Lab) -> str:
    return lab.built()


@pytest.fixture(scope="session")
def sif(lab: Lab) -> Path:
    return lab.sif()
