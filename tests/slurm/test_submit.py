"""Submission on a real Slurm: what is refused and why, what is submitted once, what a first job does."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from drive import User

pytestmark = pytest.mark.slurm
TINY = ("submit", "--preset", "tiny", "--run", "r", "--until", "tokenizer")


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("GPU_PARTITION=cpu", "has no 2 h100s a node .*; these have:\n  gpu: 2 nodes, 4 h100s a node"),
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


def test_a_half_downloaded_shard_is_refused(user: User) -> None:
    user.launch(*TINY)
    user.wait_empty("r")
    shard = next((user.base / "data" / "world").glob("shard_*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    said = user.launch("submit", "--preset", "tiny", "--run", "r2", fails=True)
    assert re.search(f"corrupt files: .*{shard.name} has [\\d,]+ bytes instead of .*\n +remedy: ", said), said
    assert not user.queue()


def test_without_slurm_on_path_the_remedy_is_said(user: User) -> None:
    place = user.folder / "bin"
    place.mkdir()
    for tool in ("bash", "dirname", "git", "sed"):
        (place / tool).symlink_to(str(shutil.which(tool)))
    said = user.launch(*TINY, fails=True, PATH=str(place))
    assert "sinfo is not on PATH: run this on a login node" in said
    assert "graph LR" in user.launch("plan", "--preset", "tiny", "--dry-run", PATH=str(place))


def test_a_first_job_that_cannot_fetch_submits_nothing(user: User) -> None:
    """The node that is to get the data has no network, and says so before the others are submitted."""
    words = ("--preset", "speedrun", "--run", "r", "--depth", "2", "--device-batch-rows", "1")
    user.do("sbatch", str(user.script("speedrun")), *words, HF_ENDPOINT="http://127.0.0.1:9")
    user.wait("the end of the first job", lambda: not user.queue())
    said = "".join(path.read_text() for path in user.folder.glob("speedrun.*.out"))
    assert "the node of the data job has no network" in said, said
    assert "python -m scripts.download_data on a login or transfer node" in said
    assert not (user.base / "runs" / "r" / "jobs.json").exists()


def test_a_hostile_run_name_ends_the_first_job(user: User) -> None:
    """Through sbatch and bash, where such a name might be run."""
    marker = user.folder / "ran"
    for name in (f"$(touch {marker})", f"`touch {marker}`", f"a; touch {marker}", "a'b \"c", "../up"):
        user.sbatch(f"--run={name}")
        user.wait("its end", lambda: not user.queue())
    logs = [path.read_text() for path in sorted(user.folder.glob("speedrun.*.out"))]
    assert len(logs) == 5 and all("error: " in log and "letters, digits" in log for log in logs), logs
    assert not marker.exists() and not (user.base / "runs").exists()


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
    user.wait("the other jobs", lambda: "submitted: " in user.log("r", "world"))
    before = json.loads(jobs.read_text())
    user.do("scontrol", "requeue", first)
    user.wait("the second start", lambda: "restart 1: begins" in user.log("r", "world"))
    assert json.loads(jobs.read_text()) == before
    user.wait("the tokenizer", lambda: user.status("r")["tokenizer"][0] == "done")
    user.launch("cancel", "r")
    user.wait_empty("r")


def test_where_jobs_may_not_submit_one_printed_line_does_it(user: User) -> None:
    first = user.sbatch("--run", "r", "--until", "tokenizer", "CAN_SUBMIT_FROM_JOB=0")
    user.wait("the data", lambda: not user.queue())
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
        user.wait("its ledger", lambda r=run: (user.base / "runs" / r / "jobs.json").exists())
        user.wait("its end", lambda r=run: user.status(r)["report"][0] == "done")
        assert {state for state, _ in user.status(run).values()} == {"done"}


def test_the_clone_may_be_edited_while_a_run_waits(user: User) -> None:
    """Every job runs the copy that the plan made."""
    user.launch(*TINY, "EXTRA=--begin=now+4")
    copy = user.base / "runs" / "r" / "code" / "scripts" / "tok_train.py"
    copy.write_text(copy.read_text().replace("def main(", "print('the copy')\n\n\ndef main("))
    user.wait_empty("r")
    assert "the copy" in user.log("r", "tokenizer")
    assert json.loads((user.base / "runs" / "r" / "code.json").read_text())["commit"]


def test_a_stage_that_makes_nothing_fails(user: User) -> None:
    user.launch(*TINY, "EXTRA=--begin=now+4")
    copy = user.base / "runs" / "r" / "code" / "scripts" / "tok_train.py"
    copy.write_text("'''Ends well, and that is all.'''\n")
    user.wait_empty("r")
    state, words = user.status("r")["tokenizer"]
    assert state == "failed" and re.search(r"it ended with 0 and left no tok/\S*tokenizer.json", words)
    assert user.attempts("r", "tokenizer")[0]["exit"] == 1 and user.status("r")["report"][0] == "done"


# ----------------------------------------------------------------------------- looking


def test_a_cluster_describes_itself(user: User) -> None:
    text = user.launch("site", "detect")
    assert {"CPU_PARTITION=cpu", "GPU_PARTITION=gpu", "GPU_TYPE=h100", "GPUS_PER_NODE=4"} <= set(text.split())
    file = user.folder / "here.env"
    file.write_text(text)
    table = user.launch("plan", "--preset", "tiny", "--site", str(file), "--device-batch-rows", "1",
                        "--total-batch-tokens", "512", "DEVICE=cpu")  # fmt: skip
    assert "site here (detected, not run)" in table and "4 GPUs" in table
    both = user.launch("plan", "--preset", "tiny", "--dry-run")
    assert re.search(r"^base +tokenizer +2 ", both, re.MULTILINE) and "base_1 -. not ok .-> base_2" in both
    assert user.launch("plan", "--preset", "tiny", "--mermaid").startswith("graph LR")
    assert "#SBATCH --gres=gpu:h100:2" in user.launch("plan", "--preset", "tiny", "--texts")


def test_a_run_that_is_not_there_is_named(user: User) -> None:
    assert "which run? runs in" in user.launch("status", fails=True)
    for command in ("status", "stop", "cancel", "resume", "logs", "cost", "attach"):
        assert "there is no run 'nope'" in user.launch(command, "nope", fails=True)
    assert "commands are plan, submit" in user.launch("statsu", fails=True)
    assert "unexpected word '--sit'" in user.launch("status", "nope", "--sit", "lab", fails=True)
    site = user.folder / "own.env"
    site.write_text("BASE_DIR=/own/place\n")
    said = user.launch("status", "nope", "--site", str(site), fails=True, NANOCHAT_BASE_DIR="")
    assert "no run 'nope' in /own/place/runs" in said
    assert "in /other/runs" in user.launch("status", "nope", "--base-dir=/other", fails=True)
