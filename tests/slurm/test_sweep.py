"""submitit on the lab: an array over three configurations; a trial that is requeued goes on where it was."""

from __future__ import annotations

import json
import os
import sys

import pytest
from drive import HOOKS, ROOT, User

from nanochat import metrics

pytestmark = pytest.mark.slurm
COMMON = ("--preset", "tiny", "NODES=1", "GPUS_PER_NODE=1", "--base.device-batch-rows", "2")


@pytest.fixture(autouse=True)
def with_submitit() -> None:
    """Within a fixture: a module that is skipped as a whole would pass where nothing may be skipped."""
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")


@pytest.fixture
def trained(user: User) -> User:
    """A user with data and tokenizer."""
    user.launch("submit", *COMMON, "--run", "data", "--until", "tokenizer")
    user.wait_empty("data")
    return user


def test_three_trials_as_one_array(trained: User) -> None:
    user = trained
    user.do("sbatch", str(user.script("sweep")), *COMMON, "--run", "lr", "--grid", "base.lr-scale=0.5,1,2")
    user.wait("the array", lambda: (user.base / "runs" / "lr" / "sweep.json").exists())
    user.wait("three trials", lambda: user.launch("status", "lr").count("  done, step 20") == 3)
    trials = json.loads((user.base / "runs" / "lr" / "sweep.json").read_text())["trials"]
    assert len({trial["id"].split("_")[0] for trial in trials}) == 1
    scales = [
        json.loads((user.base / f"base_lr-{i}" / "config.json").read_text())["lr_scale"] for i in range(3)
    ]
    assert scales == [0.5, 1.0, 2.0]
    assert len({str(user.weights(f"lr-{i}")) for i in range(3)}) == 3
    assert "bits per byte" in user.launch("status", "lr")


def test_a_requeued_trial_goes_on_at_its_step(trained: User) -> None:
    user = trained
    shape = (*COMMON, "--base.steps", "30", "--base.save-every-steps", "0", "--grid", "base.seed=3")
    user.launch("sweep", *shape, "--run", "calm")
    user.wait("the calm one", lambda: "done, step 30" in user.launch("status", "calm"))
    slow = (f"ENV_PYTHONPATH={HOOKS}", "ENV_SLOW_S=0.3", "ENV_RANK=0", "ENV_WORLD_SIZE=1")
    user.launch("sweep", *shape, *slow, "--run", "moved")
    user.wait_steps("moved-0", 5)
    job = json.loads((user.base / "runs" / "moved" / "sweep.json").read_text())["trials"][0]["id"]
    user.do("scancel", "--signal=USR2", job)
    user.wait("stop", lambda: (user.base / "base_moved-0" / "STOPPED").exists())
    stopped = json.loads((user.base / "base_moved-0" / "STOPPED").read_text())["step"]
    user.wait("the moved one", lambda: "done, step 30" in user.launch("status", "moved"))
    assert 5 <= stopped < 30 and user.weights("moved-0") == user.weights("calm-0")
    steps = [r["step"] for r in metrics.read(user.base / "base_moved-0" / "metrics.jsonl") if "loss" in r]
    assert steps == list(range(1, 31))
    log = "".join(p.read_text() for p in (user.base / "runs" / "moved" / "submitit").glob("*_log.out"))
    assert f"resumed at step {stopped} of 30" in log


def test_a_function_of_ones_own(user: User) -> None:
    """As its page shows."""
    page = (ROOT / "docs" / "how-to" / "sweep.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("mycluster", "lab")
    said = user.do(sys.executable, "-c", code, PYTHONPATH=str(ROOT))
    assert "1024" in said.splitlines(), said


def test_the_grid_is_checked_before_anything_is_submitted(user: User) -> None:
    for words, message in (
        ((), "a sweep needs --grid"),
        (("--grid", "base.lr-scal=1"), "did you mean"),
        (("--grid", "base.lr-scale=a"), "is not a number"),
        (("--grid", "base.lr-scale"), "write --grid"),
        (("--grid", "base.seed=1", "NODES=2"), "runs on one node"),
        (("--grid", "base.seed=1"), "missing files: tokenizer: "),
    ):
        said = user.launch("sweep", *COMMON, *words, "--run", "bad", fails=True)
        assert message in said, said
    assert not user.queue() and os.listdir(user.folder) == []
