"""A whole run on a real Slurm: one sbatch, every stage, the report."""

from __future__ import annotations

import json
import time

import pytest
from drive import User

pytestmark = pytest.mark.slurm


def test_one_command_from_the_data_to_the_report(user: User) -> None:
    started = time.monotonic()
    # what a shell inside another job would pass on
    inherited = {"SBATCH_PARTITION": "cpu", "SLURM_MEM_PER_NODE": "77", "SBATCH_TIMELIMIT": "30"}
    first = user.sbatch("--run", "exp1", **inherited)
    user.wait("the other jobs", lambda: len(user.queue()) >= 12)
    assert user.status("exp1")["sft_exams"] == ("waiting", "waiting for sft")
    user.wait_empty("exp1")
    print(user.launch("status", "exp1"))
    assert {state for state, _ in user.status("exp1").values()} == {"done"}
    report = json.loads((user.base / "report" / "report.json").read_text())
    assert {name: stage["status"] for name, stage in report["stages"].items()} == dict.fromkeys(
        ("base", "mid", "sft"), "done"
    )
    assert report["cluster"]["gpu_hours"] > 0 and "computed on CPUs" in report["cluster"]["site"]
    assert report["exams"]["sft"] and report["cluster"]["nodes"] == 2
    assert "2 rank(s)" in user.log("exp1", "base")
    assert (user.folder / f"speedrun.{first}.out").is_file()
    assert "nothing" in user.launch("resume", "exp1")
    assert time.monotonic() - started < 360
