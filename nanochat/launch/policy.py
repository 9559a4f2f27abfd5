"""May this segment begin? Whether a stage is done, held, hopeless, or goes on: decided from the ledger alone.

What it is: the rules by which no allocation is burnt twice for the same bug, and no stage runs for nothing.
They are the same for a first start, the next segment, a preemption and a lost node. What it is not: starting
anything (`body.py`). Run: `pytest tests/test_launch_policy.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nanochat.common import EXIT_DONE, EXIT_FAULT, EXIT_STOPPED, EXIT_USAGE
from nanochat.launch.ledger import DONE, FAULT, STOPPED, Attempt, RunFolder, started_again
from nanochat.launch.plan import Plan, Stage


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Why a job ends at once, and with which exit code."""

    exit: int
    reason: str


def finished(plan: Plan, stage: Stage) -> bool:
    """Whether a stage has ended well and what it left is still there."""
    folder = RunFolder(plan.folder)
    return folder.is_done(stage.name) and (Path(plan.base_dir) / stage.leaves).exists()


def refusal(plan: Plan, stage: Stage, attempts: Sequence[Attempt], checkpoint: int | None) -> Verdict | None:
    """Why a job of this stage should not begin now, or None. `attempts`: those since it was submitted."""
    if finished(plan, stage):
        return Verdict(EXIT_DONE, "is done already")
    if RunFolder(plan.folder).held():
        return Verdict(EXIT_STOPPED, f"the run is held; python -m scripts.launch resume {plan.run}")
    if stage.parent and not finished(plan, plan.stage(stage.parent)):
        return Verdict(EXIT_FAULT, f"{stage.parent} is not done")
    why = hopeless(attempts, checkpoint)
    return Verdict(EXIT_FAULT, why) if why else None


def hopeless(attempts: Sequence[Attempt], checkpoint: int | None) -> str:
    """Why another attempt would end as the last one; "" if it may not.

    A fault of the options is never tried again, another fault once; a second one without a new checkpoint in
    between is final, and so is a second stop without a step. A start that Slurm took away does not count.
    """
    attempts = [a for a in attempts if not started_again(a, attempts)]
    faults = [a for a in attempts if a.outcome == FAULT]
    if faults and faults[-1].exit == EXIT_USAGE:
        return f"it cannot run as it is: {faults[-1].reason}"
    if len(faults) > 1 and _step(checkpoint) <= _step(faults[-1].step):
        return f"it failed twice without a new checkpoint: {faults[-1].reason}"
    stops = [a for a in attempts if a.outcome in (STOPPED, DONE, FAULT)][-2:]
    if len(stops) == 2 and all(a.outcome == STOPPED and _step(a.last) <= _step(a.step) for a in stops):
        return (
            "it stopped twice without a step: the time limit leaves no time to train; use --segment-minutes"
        )
    return ""


def _step(step: int | None) -> int:
    return -1 if step is None else step
