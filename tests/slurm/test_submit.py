"""Submission on a real Slurm: what is refused and why, what is submitted once, what a node check does."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from drive import User
from lab import Lab, Spec

from nanochat.launch import checks, sites, submission
from nanochat.launch import plan as plans
from nanochat.launch.request import read

pytestmark = pytest.mark.slurm
TINY = ("submit", "--preset", "tiny", "--run", "r", "--until", "tokenizer")


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("GPU_PARTITION=cpu", "has no 2 h100s a node .*; these have:\n  gpu: 2 nodes, gpu:h100:4"),
        ("GPU_PARTITION=gpus", "there is no partition 'gpus'; there are:"),
        ("GPU_PARTITION=", "several partitions have 2 h100s a node; choose one with GPU_PARTITION"),
        ("GPU_PARTITION= GPU_TYPE=b300", "no partition has 2 b300s a node; set GPU_PARTITION"),
        ("GPUS_PER_NODE=9", "has no 9 h100s a node"),
        ("NODES=3 --device-batch-rows 1 --total-batch-tokens 384", "Slurm refuses jobs of this plan"),
        ("--segment-minutes 900", "over the limit of the site"),
        ("ACCOUT=x", "did you mean ACCOUNT"),
        ("--site perlmutter", "set these in .env.local"),
        ("GPU_REQUEST=--gpus-per-node={gpus} EXTRA=--gres=gpu:1", "asked for twice"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_is_submitted(
    user: User, words: str, message: str
) -> None:
    said = user.launch(*TINY[:-2], *words.split(), fails=True, SCRATCH="/scratch")
    assert re.search(message, said, re.DOTALL), said
    assert not user.queue() and not list(user.base.glob("runs/*/jobs.json"))


def test_a_refused_run_can_be_mended_and_submitted(user: User) -> None:
    user.launch(*TINY[:-2], "NODES=3", "--device-batch-rows", "1", "--total-batch-tokens", "384", fails=True)
    user.launch(*TINY)
    user.wait_empty("r")
    assert user.status("r")["tokenizer"][0] == "done"


def test_a_run_is_not_submitted_over_itself(user: User) -> None:
    user.launch(*TINY, "EXTRA=--begin=now+60")
    said = user.launch(*TINY, fails=True)
    assert "run r is in the queue" in said
    user.launch("cancel", "r")
    user.wait_empty("r")
    said = user.launch(*TINY, "--tokenizer.vocab-size", "300", fails=True)
    assert "planned with other options (tokenizer.vocab_size: there 512, now 300)" in said
    user.launch(*TINY)  # the same command goes on
    user.wait_empty("r")
    assert user.status("r")["tokenizer"][0] == "done"
    user.launch(*TINY, "--tokenizer.vocab-size", "300", "--tokenizer.tok-dir", "tok/small", "--fresh")
    user.wait_empty("r")
    assert list(user.base.glob("runs/r.old.*")) and user.status("r")["tokenizer"][0] == "done"


# ----------------------------------------------------------------------------- the first job


def test_a_first_job_that_is_started_again_submits_nothing_twice(user: User) -> None:
    first = user.sbatch("--run", "r", "--world.megabytes", "12")
    jobs = user.base / "runs" / "r" / "jobs.json"
    user.wait("the other jobs", lambda: "submitted: " in user.log("r", "world"), 60)
    before = json.loads(jobs.read_text())
    user.do("scontrol", "requeue", first)
    user.wait("the second start", lambda: "restart 1: begins" in user.log("r", "world"), 90)
    assert json.loads(jobs.read_text()) == before
    user.wait("the tokenizer", lambda: user.status("r")["tokenizer"][0] == "done", 90)
    user.launch("cancel", "r")
    user.wait_empty("r")


def test_where_jobs_may_not_submit_one_printed_line_does_it(user: User) -> None:
    first = user.sbatch("--run", "r", "--until", "tokenizer", "CAN_SUBMIT_FROM_JOB=0")
    user.wait("the data", lambda: not user.queue(), 60)
    said = (user.folder / f"speedrun.{first}.out").read_text()
    assert user.status("r")["world"][0] == "done" and user.status("r")["tokenizer"][0] == "not submitted"
    line = next(line for line in said.splitlines() if "scripts.launch resume r" in line)
    user.do("bash", "-c", line)
    user.wait_empty("r")
    assert user.status("r")["tokenizer"][0] == "done"


def test_two_runs_at_once_do_not_touch_each_other(user: User) -> None:
    for run in ("one", "two"):
        user.sbatch("--run", run, "--until", "tokenizer")
    for run in ("one", "two"):
        user.wait("its ledger", lambda r=run: (user.base / "runs" / r / "jobs.json").exists(), 60)
        user.wait("its end", lambda r=run: user.status(r)["report"][0] == "done", 90)
        assert {state for state, _ in user.status(run).values()} == {"done"}


def test_the_clone_may_be_edited_while_a_run_waits(user: User) -> None:
    """Every job runs the copy that the plan made."""
    user.launch(*TINY, "EXTRA=--begin=now+4")
    copy = user.base / "runs" / "r" / "code" / "scripts" / "tok_train.py"
    copy.write_text(copy.read_text().replace("def main(", "print('the copy')\n\n\ndef main("))
    user.wait_empty("r")
    assert "the copy" in user.log("r", "tokenizer")
    assert json.loads((user.base / "runs" / "r" / "code.json").read_text())["commit"]


# ----------------------------------------------------------------------------- nodes


@pytest.mark.slow
def test_a_bad_node_is_named_and_used_no_more(user: User) -> None:
    scratch = user.folder / "scratch"
    (scratch / "gpu1").mkdir(parents=True)  # gpu2 has none
    user.launch("submit", "--preset", "tiny", "--run", "r", "--until", "base", "NODE_CHECK=1",
                f"LOCAL_SCRATCH={scratch}/$SLURMD_NODENAME", "--segments", "3")  # fmt: skip
    user.wait("the check", lambda: (user.base / "runs" / "r" / "exclude.json").exists())
    bad = json.loads((user.base / "runs" / "r" / "exclude.json").read_text())
    assert list(bad) == ["gpu2"] and "cannot be written" in bad["gpu2"]
    user.wait("the second segment", lambda: "base.1" in user.status("r")["base"][1], 30)
    job = user.do("squeue", "-h", "-n", "r-base.2", "-o", "%i").strip()
    assert "ExcNodeList=gpu2" in user.do("scontrol", "show", "job", job)
    assert "node gpu2 is not used any more" in user.launch("doctor", "r", fails=True)
    log = user.log("r", "base")
    assert re.search(r"node gpu1: ok, [\d.]+ GB/s over", log)
    user.launch("cancel", "r")
    user.wait_empty("r")


@pytest.mark.slow
def test_good_nodes_read_the_data_from_their_own_disks(user: User) -> None:
    scratch = user.folder / "disk"
    for node in ("gpu1", "gpu2"):
        (scratch / node).mkdir(parents=True)
    disks = f"LOCAL_SCRATCH={scratch}/$SLURMD_NODENAME"
    user.launch(*TINY[:-1], "base", "NODE_CHECK=1", "STAGE_LOCAL=1", disks)
    user.wait_empty("r")
    assert user.status("r")["base"][0] == "done", user.log("r", "base")
    log = user.log("r", "base")
    assert log.count("stage-in: ") == 2 and log.count(": ok, ") == 2
    for node in ("gpu1", "gpu2"):
        assert list((scratch / node).glob("nanochat/world/shard_*.parquet"))


# ----------------------------------------------------------------------------- looking


def test_a_cluster_describes_itself(user: User) -> None:
    text = user.launch("detect")
    assert {"CPU_PARTITION=cpu", "GPU_PARTITION=gpu", "GPU_TYPE=h100", "GPUS_PER_NODE=4"} <= set(text.split())
    file = user.folder / "here.env"
    file.write_text(text)
    table = user.launch("plan", "--preset", "tiny", "--site", str(file), "--device-batch-rows", "1",
                        "--total-batch-tokens", "512", "DEVICE=cpu")  # fmt: skip
    assert "site here (detected, not run)" in table and "4 GPUs" in table
    assert "graph LR" in user.launch("plan", "--preset", "tiny", "--mermaid")
    assert "#SBATCH --gres=gpu:h100:2" in user.launch("plan", "--preset", "tiny", "--texts")


def test_a_run_that_is_not_there_is_named(user: User) -> None:
    assert "which run? runs in" in user.launch("status", fails=True)
    for command in ("status", "stop", "cancel", "resume", "logs", "cost", "attach"):
        assert "there is no run 'nope'" in user.launch(command, "nope", fails=True)
    assert "commands are plan, submit" in user.launch("statsu", fails=True)


# ----------------------------------------------------------------------------- every site


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab with a site's GPUs, as many nodes as a plan of two needs."""
    stored = sites.read(sites.FOLDER / f"{request.param}.env")
    gpus = stored.get("GPUS_PER_NODE", "8").replace("?", "4")
    features = re.findall(r"--constraint=(\w+)", " ".join(stored.values()))
    spec = Spec(gpus=int(gpus), gpu_type=stored.get("GPU_TYPE", "a100"), features=",".join(features))
    with tempfile.TemporaryDirectory(prefix="nanochat-site-") as folder:
        Path(folder).chmod(0o755)
        found = Lab(Path(folder), spec)
        monkeypatch.setenv("SLURM_CONF", str(found.conf))
        for name in ("SCRATCH", "WORK"):
            monkeypatch.setenv(name, str(tmp_path))
        try:
            yield found.start()
        finally:
            found.stop()


@pytest.mark.parametrize("cluster", sites.names(), indirect=True)
def test_slurm_takes_the_plan_of_every_site(
    cluster: Lab, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = request.node.callspec.params["cluster"]
    answers = {"GPUS_PER_NODE": "4", "CPU_PARTITION": "cpu", "BASE_DIR": str(tmp_path), "BINDS": "/tmp"}
    asked = sites.read(sites.FOLDER / f"{name}.env")
    words = [f"{k}={answers.get(k, 'proj')}" for k, v in asked.items() if v == "?"]
    words += ["GPU_PARTITION=gpu", "NODES=2", "--run", "r", "--base-dir", str(tmp_path)]
    words += ["--preset", "tiny"] if name == "lab" else ["--depth", "12"]
    found = checks.fit(read(["--site", name, *words]))
    plan, fitted = plans.build(found, "id")
    submission.prepare(plan, fitted, found.preflight)
    submission.check(plan)
    assert len(plan.jobs) >= 10
