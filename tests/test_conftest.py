"""A skip of a lane that NANOCHAT_REQUIRE names is a failure; of any other, a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
import pytest

@pytest.mark.slurm
def test_marked(): pass

@pytest.mark.rust
def test_skips_by_itself(): pytest.importorskip("no_such_module")

def test_asks(require): require("slurm")

def test_unmarked(): pytest.skip("allowed")

@pytest.mark.container
def test_image(): pytest.skip("UV_FIND_LINKS names no folder with a wheel of torch")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("required", "wheels", "outcome", "code"),
    [
        ("", "", "5 skipped", 0),
        ("slurm,rust", "", "2 skipped", 1),
        ("container", "", "5 skipped", 0),
        ("container", "/wheels", "4 skipped", 1),
    ],
)
def test_a_required_lane_cannot_be_skipped(
    tmp_path: Path, required: str, wheels: str, outcome: str, code: int
) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    tools = "def install(): pass\ndef missing(): return ''\n"  # as if all of them were here
    (tmp_path / "image_lab.py").write_text(tools, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n slurm: x\n rust: x\n container: x\n", encoding="utf-8"
    )
    env = {**os.environ, "NANOCHAT_REQUIRE": required, "UV_FIND_LINKS": wheels}
    env |= {"PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    said = run.stdout + run.stderr
    assert run.returncode == code and outcome in said and "passed" not in said, said
