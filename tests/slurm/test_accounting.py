"""A lab with accounts: who may not pay is refused by name, and the cost counts what was lost."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lab as labs
import pytest
from drive import HOOKS, User
from lab import Lab, Spec

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def accounted() -> Iterator[Lab]:
    if labs.missing(accounting=True):
        pytest.skip("no slurmdbd, no MariaDB: as root, python tests/slurm/lab.py install --accounting")
    folder = Path(tempfile.mkdtemp(prefix="nanochat-acct-"))
    folder.chmod(0o755)
    cluster = Lab(folder, Spec(accounting=True, qos=("short",)))
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def member(accounted: Lab, tmp_path: Path) -> Iterator[User]:
    found = User(accounted, tmp_path)
    yield found
    found.cancel_all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ACCOUNT=nobody", "account 'nobody' is not one of yours\n    remedy: set ACCOUNT to one of: proj"),
        ("QOS=long", "QOS=long: not a QOS of your account\n    remedy: set QOS to one of: normal, short"),
    ],
)
def test_who_may_not_pay_is_refused(member: User, words: str, message: str) -> None:
    said = member.launch("submit", "--preset", "tiny", "--run", "r", *words.split(), fails=True)
    assert message in said and not member.queue()


def test_the_account_of_the_first_job_pays_for_all(member: User) -> None:
    member.sbatch("--run", "r", "--until", "tokenizer", SBATCH_ACCOUNT="proj")
    member.wait("the other jobs", lambda: "submitted: " in member.log("r", "world"), 60)
    member.wait_empty("r")
    assert set(member.do("sacct", "-nPX", "-o", "Account").split()) == {"proj"}


def test_a_start_that_was_lost_is_paid_for(member: User) -> None:
    hooks = (f"ENV_PYTHONPATH={HOOKS}", "ENV_SLOW_S=0.3", "PRICE_PER_GPU_HOUR=2")
    member.launch("submit", "--preset", "tiny", "--run", "r", "--until", "base", "--base.steps", "60", *hooks)
    member.wait_steps("r", 20)
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
