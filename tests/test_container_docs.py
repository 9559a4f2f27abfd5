"""The pages on containers: the tutorial's commands in a real SIF, those of the how-to as far as they can run.

Without NANOCHAT_TEST_SIF the tutorial is skipped. The how-to's commands name images and engines that are not
here, so they are printed (`--print`), which checks their options, and not run.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import plain_user
import pytest
from test_docs import ROOT, commands

TUTORIAL, HOW_TO = "docs/tutorials/05-reproducible-container.md", "docs/how-to/containers.md"


@pytest.mark.container
@pytest.mark.slow
def test_the_tutorial_in_a_real_image() -> None:
    image = plain_user.image()
    with plain_user.folder() as place:
        lines = commands(TUTORIAL)
        script = f"ln -s {ROOT / 'containers'} containers; ln -s {image} nanochat.sif\n" + "\n".join(lines)
        run = plain_user.run(["bash", "-euxo", "pipefail", "-c", script], place)
        assert run.returncode == 0, f"{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
        assert len(lines) == 12 and run.stderr.count("containers/run/apptainer.sh") >= 7
        assert "self-test: passed" in run.stdout and run.stdout.rstrip().endswith("the same")
        assert (place / "second/report/report.html").is_file()


def test_images_have_the_name_that_a_build_gives() -> None:
    """docker would look for another one in a registry."""
    files = [path for place in ("containers", "docs") for path in (ROOT / place).rglob("*") if path.is_file()]
    named = [
        path.name for path in files if re.search(r"(?<!localhost/)\bnanochat:c[pu]", path.read_text("utf-8"))
    ]
    assert len(files) > 20 and not named


def test_the_commands_of_the_how_to(tmp_path: Path) -> None:
    (tmp_path / "containers").symlink_to(ROOT / "containers")
    lines = commands(HOW_TO)
    assert len(lines) == 8
    for line in lines:
        shown = re.sub(r"(apptainer|docker)\.sh", r"\1.sh --print", line)
        run = subprocess.run(["bash", "-c", shown], cwd=tmp_path, capture_output=True, text=True, check=False)
        verdicts = (0, 1) if "doctor.sh" in line else (0,)  # this machine may have faults
        assert run.returncode in verdicts and run.stdout, f"{shown}\n{run.stderr}"
    assert [path.name for path in tmp_path.iterdir()] == ["containers"]
