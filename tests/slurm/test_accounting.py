"""A lab with accounts: who may not pay is refused by name, and the cost counts what was lost."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from drive import HOOKS, ROOT, User
from lab import ACCOUNTED, Lab

pytestmark = pytest.mark.slurm


@pytest.fixture
def member(lab_with_accounts: Lab, tmp_path: Path) -> Iterator[User]:
    found = User(lab_with_accounts.reshape(ACCOUNTED), tmp_path)
    yield found
    found.cancel_all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ACCOUNT=nobody", "account 'nobody' is not one of yours\n    remedy: set ACCOUNT to one of: proj"),
        ("QOS=urgent", "QOS=urgent: not a QOS of your account\n    remedy: set QOS to one of: long, normal"),
    ],
)
def test_who_may_not_pay_is_refused(member: User, words: str, message: str) -> None:
    said = member.launch("submit", "--preset", "tiny", "--run", "r", *words.split(), fails=True)
    assert message in said and not member.queue()


BAD_SITES = [
    (
        "ACCOUNT=nobody GPU_PARTITION=gpu MAX_HOURS=48 GPU_TYPE=v100 EXTRA=--gpus=2",
        {"account": "'nobody' is not one of yours", "max time": "'gpu' allows 12 hours",
         "gpu type": "set GPU_TYPE to one of: h100", "gpu style": "asked for twice"},
    ),
    (
        "QOS=urgent GPU_PARTITION=gpus CPU_PARTITION=gpu",
        {"qos": "set QOS to one of: long, normal, short", "partition": "there is no such partition"},
    ),
    ("GPU_PARTITION=cpu", {"partition": "has no GPUs"}),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "wanted"), BAD_SITES)
def test_preflight_judges_a_real_slurm(member: User, keys: str, wanted: dict[str, str]) -> None:
    """What the table of tests/test_preflight.py takes from stored answers, all in one pass."""
    file = member.folder / "bad.env"
    file.write_text("\n".join(["DEVICE=cpu", "GPUS_PER_NODE=4", *keys.split()]))
    words = (sys.executable, "-m", "scripts.preflight", "--site", str(file), "--stages", "report", "--json")
    said = json.loads(member.do(*words, fails=True, PYTHONPATH=str(ROOT)))
    found = {one["check"]: f"{one['text']}; {one['remedy']}" for one in said["findings"]}
    assert said["exit_code"] == 2 and found.keys() == wanted.keys(), found
    assert all(text in found[check] for check, text in wanted.items()), found


def test_nothing_but_a_partition_and_an_account(lab_with_accounts: Lab, tmp_path: Path) -> None:
    """No site file: the GPU partition is the one that has them."""
    lab = lab_with_accounts.reshape(dataclasses.replace(ACCOUNTED, gpus=8, preemptible=False))
    user = User(lab, tmp_path)
    del user.env["NANOCHAT_SITE"]
    on_cpus = ("DEVICE=cpu", "RANKS_PER_NODE=1")  # what no cluster needs
    user.sbatch(
        "--run", "r", "--until", "base", *on_cpus, SBATCH_PARTITION="cpu", SBATCH_ACCOUNT="proj",
    )  # fmt: skip
    user.wait("the other jobs", lambda: "submitted: " in user.log("r", "world"))
    user.wait_empty("r")
    assert {state for state, _ in user.status("r").values()} == {"done"}
    paid = user.do("sacct", "-nPX", "-o", "JobName,Account,Partition").split()
    assert {line.split("|", 1)[1] for line in paid} == {"proj|cpu", "proj|gpu"}
    assert "r-base.1|proj|gpu" in paid and "r-tokenizer|proj|cpu" in paid


def test_a_start_that_was_lost_is_paid_for(member: User) -> None:
    hooks = (f"ENV_PYTHONPATH={HOOKS}", "ENV_SLOW_S=0.3", "PRICE_PER_GPU_HOUR=2")
    member.launch("submit", "--preset", "tiny", "--run", "r", "--until", "base", "--base.steps", "30", *hooks)
    member.wait_steps("r", 10)
    job = member.attempts("r", "base")[0]["id"]
    member.do("scontrol", "requeue", job)
    member.wait_empty("r")
    assert member.status("r")["base"][0] == "done"
    starts = member.attempts("r", "base")
    own = sum((a["ended"] or a["seen"]) - a["started"] for a in starts) * 4 / 3600
    said = member.launch("cost", "r")
    match = re.search(r"^base +(\d+) starts +([\d.]+) GPU-hours", said, re.MULTILINE)
    assert match and match[1] == "2", said
    assert abs(float(match[2]) - own) < 0.02, (own, said)  # Slurm counts the time before and after, too
    last = member.do("sacct", "-nPX", "-j", job, "-o", "ElapsedRaw").split()
    assert (
        len(last) == 1 and float(match[2]) > int(last[0]) * 4 / 3600 + 0.005
    )  # what a plain sacct would say
    assert re.search(r"total .* GPU-hours, [\d.]+ at 2 each", said)
