"""What goes wrong on a cluster, done to a run in pretraining: each ends with the weights of the undisturbed
run.

And, by the ledger, no fault makes more steps done twice than lie between two saves; `status` says in words
what is going on at each point. Those marked slow are only in the long form.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from drive import HOOKS, User
from lab import Lab

pytestmark = pytest.mark.slurm
STEPS, EVERY = 120, 20  # steps of pretraining, and between two saves
SHAPE = ("--until", "base", "--base.steps", str(STEPS), "--base.save-every-steps", str(EVERY))


@pytest.fixture(scope="module")
def place(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> User:
    """A user whose run `calm` nothing has disturbed."""
    found = User(lab, tmp_path_factory.mktemp("faults"))
    found.launch("submit", "--preset", "tiny", "--run", "calm", *SHAPE)
    found.wait_empty("calm")
    assert found.status("calm")["base"][0] == "done", found.log("calm", "base")
    return found


@pytest.fixture
def user(place: User) -> Iterator[User]:
    """The same user; nothing that a failed test left goes on."""
    yield place
    place.cancel_all()


def begin(
    user: User, run: str, *words: str, slow_s: float = 0.1, fault: str = "", minutes: str = "30"
) -> None:
    """Submit a run whose steps take `slow_s` longer."""
    hooks = (f"ENV_PYTHONPATH={HOOKS}", f"ENV_SLOW_S={slow_s}", f"ENV_TOY_FAULT={fault}")
    user.launch(
        "submit", "--preset", "tiny", "--run", run, *SHAPE, "--segment-minutes", minutes, *hooks, *words
    )


def ends_as_undisturbed(user: User, run: str, faults: int) -> None:
    user.wait_empty(run)
    assert user.status(run)["base"][0] == "done", user.log(run, "base")
    assert user.weights(run) == user.weights("calm")
    attempts = user.attempts(run, "base")
    repeated = [max(0, (a["reached"] or 0) - (a["step"] or 0)) for a in attempts]
    starts = f"{len(attempts)} starts, exits {[a['exit'] for a in attempts]}"
    print(f"\n{run}: {starts}, {sum(repeated)} steps done twice, bit-equal; {user.status(run)['base'][1]}")
    assert sum(repeated) <= faults * EVERY, repeated
    assert user.status(run)["report"][0] == "done"


# ----------------------------------------------------------------------------- walltime


@pytest.mark.slow
def test_a_chain_of_segments_stops_before_the_limit_and_goes_on(user: User) -> None:
    begin(user, "clock", "--segments", "12", slow_s=0.9, minutes="1")
    user.wait("second segment", lambda: len(user.attempts("clock", "base")) > 1)
    state, words = user.status("clock")["base"]
    assert state in ("waiting", "running") and "base.1 stopped cleanly at step" in words
    ends_as_undisturbed(user, "clock", faults=0)
    attempts = user.attempts("clock", "base")
    assert len(attempts) >= 3 and [a["job"] for a in attempts] == [
        f"base.{i + 1}" for i in range(len(attempts))
    ]
    assert [a["exit"] for a in attempts] == [75] * (len(attempts) - 1) + [0]
    # the segments to spare were taken away, and none of them began
    jobs = user.do("squeue", "-h", "-t", "all", "-o", "%j %T").splitlines()
    spare = {line for line in jobs if int((re.match(r"clock-base\.(\d+)", line) or "00")[1]) > len(attempts)}
    assert len(spare) == 12 - len(attempts) and all(line.endswith(" CANCELLED") for line in spare)
    assert "is done already" not in user.log("clock", "base")


@pytest.mark.slow
def test_a_segment_that_slurm_ends_is_gone_on_with_from_its_last_save(user: User) -> None:
    begin(user, "noclock", "--segments", "12", "STOP_MARGIN_S=0", slow_s=0.9, minutes="1")
    user.wait("second segment", lambda: len(user.attempts("noclock", "base")) > 1)
    assert "base.1 ended by its time limit" in user.status("noclock")["base"][1]
    ends_as_undisturbed(user, "noclock", faults=len(user.attempts("noclock", "base")) - 1)
    states = user.do("squeue", "-h", "-t", "all", "-o", "%j %T").splitlines()
    assert "noclock-base.1 TIMEOUT" in states


# ----------------------------------------------------------------------------- what Slurm does


def test_preemption(user: User) -> None:
    begin(user, "preempt", "GPU_PARTITION=preemptible")
    user.wait_steps("preempt", EVERY + 10)
    script = user.folder / "urgent.sh"
    script.write_text("#!/bin/bash\nsleep 8\n")
    whole = ("-p", "gpu", "-N2", "--exclusive", "--gres=gpu:h100:4", "-o", "/dev/null", str(script))
    user.do("sbatch", *whole)
    user.wait("preemption", lambda: user.status("preempt")["base"][0] == "waiting")
    assert "preempted" in user.status("preempt")["base"][1]
    ends_as_undisturbed(user, "preempt", faults=1)
    attempts = user.attempts("preempt", "base")
    assert [(a["job"], a["restart"]) for a in attempts] == [("base.1", 0), ("base.1", 1)]


@pytest.mark.slow
def test_a_node_that_dies(user: User, lab: Lab) -> None:
    begin(user, "node")
    user.wait_steps("node", EVERY + 10)
    lab.kill_node("gpu2")
    try:
        user.wait("a waiting job", lambda: user.status("node")["base"][0] == "waiting")
        assert "lost its node" in user.status("node")["base"][1]
    finally:
        lab.start_node("gpu2")
    ends_as_undisturbed(user, "node", faults=1)


@pytest.mark.slow
def test_a_cancelled_run_is_resumed(user: User) -> None:
    begin(user, "cancel")
    user.wait_steps("cancel", EVERY + 10)
    user.launch("cancel", "cancel")
    user.wait_empty("cancel")
    assert user.status("cancel")["base"][0] == "cancelled"
    user.launch("resume", "cancel")
    ends_as_undisturbed(user, "cancel", faults=1)


@pytest.mark.slow
def test_a_bare_scancel_of_a_segment_starts_the_next_and_that_of_the_launcher_does_not(user: User) -> None:
    begin(user, "bare")
    user.wait_steps("bare", 10)
    job = user.attempts("bare", "base")[0]["id"]
    user.do("scancel", job)
    user.wait("base.2", lambda: len(user.attempts("bare", "base")) == 2)
    ends_as_undisturbed(user, "bare", faults=1)
    assert [a["job"] for a in user.attempts("bare", "base")] == ["base.1", "base.2"]


# ----------------------------------------------------------------------------- the user, and what breaks


@pytest.mark.slow
def test_stop_ends_cleanly_and_nothing_begins_before_resume(user: User) -> None:
    begin(user, "stop")
    user.wait_steps("stop", EVERY + 10)
    user.launch("stop", "stop")
    user.wait_empty("stop")
    state, words = user.status("stop")["base"]
    assert state == "stopped" and re.search(r"base\.1 stopped cleanly at step \d+", words)
    assert len(user.attempts("stop", "base")) == 1 and user.status("stop")["report"][0] == "cancelled"
    user.launch("resume", "stop")
    ends_as_undisturbed(user, "stop", faults=0)


@pytest.mark.slow
def test_a_stop_file_ends_the_segment_and_the_next_goes_on(user: User) -> None:
    begin(user, "file")
    user.wait_steps("file", EVERY + 10)
    (user.base / "base_file" / "STOP").touch()
    ends_as_undisturbed(user, "file", faults=0)
    assert [a["exit"] for a in user.attempts("file", "base")] == [75, 0]


def test_a_rank_that_is_killed(user: User) -> None:
    begin(user, "rank")
    user.wait_steps("rank", EVERY + 10)
    os.kill(user.ranks(user.attempts("rank", "base")[0]["id"])[1], signal.SIGKILL)
    user.wait("base.2", lambda: len(user.attempts("rank", "base")) == 2)
    assert "base.1 failed at step" in user.status("rank")["base"][1]
    ends_as_undisturbed(user, "rank", faults=1)


@pytest.mark.slow
def test_a_bug_does_not_burn_every_segment(user: User) -> None:
    """A NaN at the same step each time: tried twice, then the rest of the run is taken away and reported."""
    begin(user, "bug", "--segments", "6", slow_s=0.0, fault=f"nan:{EVERY - 10}:loss:0")
    user.wait_empty("bug")
    assert len(user.attempts("bug", "base")) == 2
    status = user.status("bug")
    assert status["base"][0] == "failed" and "NotFinite" in status["base"][1]
    assert status["report"][0] == "done"


def test_a_failed_parent_leaves_nothing_in_the_queue(user: User) -> None:
    """A tokenizer that cannot be made: every later job goes, and the report says why."""
    user.launch("submit", "--preset", "tiny", "--run", "parent", "--tokenizer.data-dir", "data/elsewhere",
                "--tokenizer.tok-dir", "tok/other")  # fmt: skip
    user.wait_empty("parent")
    status = user.status("parent")
    assert status["tokenizer"][0] == "failed" and "data/elsewhere" in user.log("parent", "tokenizer")
    assert {status[s][0] for s in ("base", "mid", "sft", "sft_exams")} == {"cancelled"}
    assert status["report"][0] == "done"
    assert not [a for stage in ("base", "mid", "sft") for a in user.attempts("parent", stage)]
    doctor = user.launch("doctor", "parent", fails=True)
    assert "tokenizer failed" in doctor and "log:" in doctor
