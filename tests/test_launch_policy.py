"""Whether a segment begins: every rule, with the cases on either side of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nanochat.launch import ledger, policy, status
from nanochat.launch import plan as plans
from nanochat.launch.ledger import Attempt, RunFolder, Submitted
from nanochat.launch.plan import Plan
from nanochat.launch.request import read
from nanochat.slurm import Queued

A = Attempt("base.1", "base", "7", 0, ["n1"], 8, 100.0, 160.0)


def fault(step: int | None = None, code: int = 1) -> Attempt:
    return dataclasses.replace(A, outcome="fault", exit=code, reason="it broke", step=step)


def stop(step: int, last: int) -> Attempt:
    return dataclasses.replace(A, outcome="stopped", step=step, last=last)


def again(attempt: Attempt, restart: int) -> Attempt:
    """A start of a job that Slurm starts more than once."""
    return dataclasses.replace(attempt, id="8", restart=restart)


KILL = dataclasses.replace(A, outcome="killed")


@pytest.mark.parametrize(
    ("attempts", "checkpoint", "words"),
    [
        ([], None, ""),
        ([fault()], None, ""),  # tried once more
        ([fault(), fault()], None, "failed twice"),
        ([fault(), fault()], 20, ""),  # the second one has made a checkpoint
        ([fault(20), fault(20)], 20, "failed twice"),
        ([fault(20), stop(20, 60), fault(60)], 60, "failed twice"),
        ([fault(20), stop(20, 60), fault(60)], 80, ""),
        ([fault(code=2)], None, "cannot run as it is"),
        ([fault(), KILL, KILL, KILL], None, ""),  # what Slurm does is nobody's fault
        ([again(fault(), 0), again(fault(), 1)], None, ""),  # the first start was lost with its node
        ([fault(), again(fault(), 0), again(fault(), 1)], None, "failed twice"),
        ([again(stop(0, 0), 0), again(stop(0, 0), 1), again(stop(0, 0), 2)], 0, ""),  # preempted
        ([stop(0, 30), stop(30, 60), stop(60, 90)], 90, ""),
        ([stop(0, 0), stop(0, 0)], 0, "no time to train"),
        ([stop(0, 0)], 0, ""),
    ],
)  # fmt: skip
def test_what_is_not_tried_again(attempts: list[Attempt], checkpoint: int | None, words: str) -> None:
    found = policy.hopeless(attempts, checkpoint)
    assert words in found and bool(found) == bool(words)


# ----------------------------------------------------------------------------- in a run


@pytest.fixture
def plan(base: Path) -> Plan:
    return plans.build(read(["--preset", "tiny", "--site", "lab", "--run", "r"]), "id")[0]


def done(plan: Plan, stage: str) -> None:
    """The stage has ended well and left what it must."""
    RunFolder(plan.folder).write(dataclasses.replace(A, job=stage, stage=stage, outcome=ledger.DONE))
    path = Path(plan.base_dir) / plan.stage(stage).leaves
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def refused(plan: Plan, stage: str) -> tuple[int, str] | None:
    verdict = policy.refusal(plan, plan.stage(stage), [], None)
    return (verdict.exit, verdict.reason) if verdict else None


def test_a_stage_waits_for_its_parent(plan: Plan) -> None:
    assert refused(plan, "world") is None
    assert refused(plan, "tokenizer") == (1, "world is not done")
    done(plan, "world")
    assert refused(plan, "tokenizer") is None


def test_done_needs_the_word_and_the_thing(plan: Plan) -> None:
    done(plan, "world")
    assert refused(plan, "world") == (0, "is done already")
    (Path(plan.base_dir) / plan.stage("world").leaves).unlink()
    assert refused(plan, "world") is None


def test_status_survives_an_end_between_two_looks(plan: Plan) -> None:
    """The starts were read a moment before the stage ended: it is shown as running, and nothing breaks."""
    done(plan, "world")
    job = Submitted("world", "world", "7", 0.0)
    running = {"7": Queued("7", "RUNNING")}
    assert status._row(plan, plan.stage("world"), [job], [], running).state == status.RUNNING
    attempts = RunFolder(plan.folder).attempts()
    assert status._row(plan, plan.stage("world"), [job], attempts, running).state == status.DONE


def test_nothing_begins_while_the_run_is_held(plan: Plan) -> None:
    run = RunFolder(plan.folder)
    run.hold("stop")
    assert refused(plan, "world") == (75, "the run is held; python -m scripts.launch resume r")
    run.release()
    assert refused(plan, "world") is None


def test_the_report_waits_for_no_success(plan: Plan) -> None:
    assert refused(plan, "report") is None
