"""A run in words: each stage's state, why it waits, how far it is, when it will end.

What it is: the ledger, the metrics and what Slurm says, put together as `Row`s and a table. Works while the
run is in the queue, afterwards, and where Slurm has forgotten the jobs. What it is not: a judge or a mender
(`doctor.py`). Run: `python -m scripts.launch status RUN`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nanochat import slurm
from nanochat.common import read_json
from nanochat.launch import ledger, policy, submission
from nanochat.launch.ledger import Attempt, RunFolder, Submitted
from nanochat.launch.plan import Plan, Stage
from nanochat.metrics import format_seconds
from nanochat.slurm import Queued

# Why Slurm lets a job wait, in words. What is not here is said as Slurm says it.
WAITING = {
    "Priority": "waiting for its turn",
    "Resources": "waiting for nodes to become free",
    "BeginTime": "waiting to be started again",
    "ReqNodeNotAvail": "waiting for nodes that are down or reserved",
    "PartitionTimeLimit": "never starts: its time limit is over the partition's; use --segment-minutes",
    "PartitionDown": "waiting: the partition is down",
    "JobHeldUser": "held by you: scontrol release",
    "JobHeldAdmin": "held by the administrator",
    "DependencyNeverSatisfied": "never starts: what it waits for has failed",
    "QOSMaxJobsPerUserLimit": "waiting: the QOS lets you run no more jobs at once",
    "AssocGrpGRES": "waiting: the account's GPUs are in use",
    "QOSMaxWallDurationPerJobLimit": "never starts: its time limit is over the QOS's; use --segment-minutes",
}
# How a job that wrote no end came to it.
ENDED = {
    "TIMEOUT": "ended by its time limit",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "OUT_OF_MEMORY": "ended: out of memory",
    "CANCELLED": "cancelled",
    "DEADLINE": "ended: it could not have met its deadline",
    "FAILED": "failed",
    "COMPLETED": "ended",
}
REQUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD")  # of a job that had begun: Slurm starts it again
# The first word of a row, for people and for scripts.
DONE, RUNNING, WAITS, STOPPED, FAILED, CANCELLED, LOST, NOT_SUBMITTED = (
    "done", "running", "waiting", "stopped", "failed", "cancelled", "lost", "not submitted",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """One stage: the job that speaks for it, its state in a word, and what there is to say."""

    stage: str
    job: str
    id: str
    state: str
    words: str


def rows(plan: Plan) -> list[Row]:
    run = RunFolder(plan.folder)
    submitted, attempts = run.submitted(), run.attempts()
    known = slurm.states(s.id for s in submitted)
    return [
        _row(
            plan, stage, [s for s in submitted if s.stage == stage.name],
            [a for a in attempts if a.stage == stage.name], known,
        )
        for stage in plan.stages
    ]  # fmt: skip


def _row(
    plan: Plan,
    stage: Stage,
    jobs: Sequence[Submitted],
    attempts: Sequence[Attempt],
    known: Mapping[str, Queued],
) -> Row:
    done = [a for a in attempts if a.outcome == ledger.DONE]
    if done and policy.finished(plan, stage):  # the marker comes a moment before the job's own record
        last = done[-1]
        used = sum(a.seconds for a in attempts)
        starts = f" in {len(attempts)} starts" if len(attempts) > 1 else ""
        step = f", {last.last} steps" if last.last else ""
        return Row(stage.name, last.job, last.id, DONE, f"{format_seconds(used)}{starts}{step}")
    live = [(s, known[s.id]) for s in jobs if s.id in known and known[s.id].is_live]
    running = [(s, q) for s, q in live if q.state not in REQUEUED]
    history = _history(plan, stage, attempts, known)
    if running:
        job, queued = running[0]
        return Row(stage.name, job.job, job.id, RUNNING, _progress(plan, stage, queued) + _behind(history))
    if live:
        job, queued = live[0]
        return Row(stage.name, job.job, job.id, WAITS, _reason(plan, stage, queued) + _behind(history))
    return _ended(stage, jobs, attempts, known, history)


def _ended(
    stage: Stage,
    jobs: Sequence[Submitted],
    attempts: Sequence[Attempt],
    known: Mapping[str, Queued],
    history: str,
) -> Row:
    """A stage that is not done and has no job any more."""
    if not jobs:
        return Row(stage.name, "-", "-", NOT_SUBMITTED, "its job was not submitted; resume submits it")
    if not attempts:
        cancelled = [s for s in jobs if known.get(s.id, Queued(s.id, "")).state == "CANCELLED"]
        job = jobs[-1]
        if cancelled:
            return Row(stage.name, job.job, job.id, CANCELLED, "cancelled before it began")
        return Row(
            stage.name, job.job, job.id, LOST, "Slurm no longer knows its job; resume submits it again"
        )
    last = attempts[-1]
    ends = {ledger.STOPPED: STOPPED, ledger.KILLED: STOPPED, ledger.FAULT: FAILED}
    state = ends.get(last.outcome, LOST)
    if known.get(last.id, Queued(last.id, "")).state == "CANCELLED":
        state = CANCELLED
    return Row(stage.name, last.job, last.id, state, f"{history}; resume goes on")


def _history(plan: Plan, stage: Stage, attempts: Sequence[Attempt], known: Mapping[str, Queued]) -> str:
    """How the last attempt that is over came to its end, in words; "" if there is none."""
    over = [a for a in attempts if a.ended or not _runs(a, attempts, known)]
    if not over:
        return ""
    last = over[-1]
    state = known[last.id].state if last.id in known else ""
    at = f" at step {last.last}" if last.last is not None else ""
    where = at or _at_checkpoint(plan, stage)
    if ledger.started_again(last, attempts) or state in REQUEUED:
        return f"{last.job} was preempted or lost its node, and Slurm starts it again{where}"
    if last.outcome == ledger.FAULT:
        return f"{last.job} failed{at}: {last.reason}"
    if state in ("CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY"):
        return f"{last.job} {ENDED[state]}{where}"
    if last.outcome == ledger.STOPPED and not last.reason:
        return f"{last.job} stopped cleanly{at}"
    return f"{last.job} {last.reason or ENDED.get(state, 'ended without a word')}{where}"


def _runs(attempt: Attempt, attempts: Sequence[Attempt], known: Mapping[str, Queued]) -> bool:
    queued = known.get(attempt.id)
    is_up = queued is not None and queued.state in ("RUNNING", "COMPLETING")
    return is_up and not ledger.started_again(attempt, attempts)


def _at_checkpoint(plan: Plan, stage: Stage) -> str:
    step = (
        ledger.checkpoint_step(Path(plan.base_dir) / f"{stage.trains}_{plan.run}") if stage.trains else None
    )
    return "" if step is None else f", saved at step {step}"


def _behind(history: str) -> str:
    return f"; before: {history}" if history else ""


def _progress(plan: Plan, stage: Stage, queued: Queued) -> str:
    """`step 70 of 200, 1,234 tokens/s, about 3 min to go; limit in 20 min`."""
    limit = f"limit in {format_seconds(queued.left_s)}" if queued.left_s is not None else ""
    where = f"on {queued.nodes}"
    if not stage.trains:
        return "; ".join(filter(None, [where, limit]))
    folder = Path(plan.base_dir) / f"{stage.trains}_{plan.run}"
    record = ledger.progress(folder)
    steps = _steps(folder)
    if not record:
        return "; ".join(filter(None, [where, "starting", limit]))
    togo = f", about {format_seconds((steps - record['step']) * record['step_s'])} to go" if steps else ""
    of = f" of {steps}" if steps else ""
    step = f"step {record['step']}{of}, {record['tokens_per_s']:,.0f} tokens/s{togo}"
    return "; ".join(filter(None, [where, step, limit]))


def _steps(folder: Path) -> int | None:
    config = folder / "config.json"
    steps = read_json(config).get("steps") if config.is_file() else None
    return int(steps) if steps else None


def _reason(plan: Plan, stage: Stage, queued: Queued) -> str:
    if queued.reason == "Dependency":
        return f"waiting for {'all other stages to end' if stage.kind == 'report' else stage.parent}"
    words = WAITING.get(queued.reason.split(",")[0].strip("()"), f"waiting ({queued.reason})")
    return f"{words}; expected at {queued.start.replace('T', ' ')}" if queued.start else words


def describe(plan: Plan) -> str:
    """The table that `status` prints."""
    found = rows(plan)
    widths = [max(len(getattr(row, name)) for row in found) for name in ("stage", "state", "id")]
    lines = [
        f"{row.stage:<{widths[0]}}  {row.state:<{widths[1]}}  {row.id:<{widths[2]}}  {row.words}".rstrip()
        for row in found
    ]
    run = RunFolder(plan.folder)
    notes = ["held: no job begins before resume"] if run.held() else []
    notes += [f"bad nodes may still be used; type: {line}"] if (line := submission.to_type(plan)) else []
    used = ledger.gpu_hours(run.attempts())
    head = f"run {plan.run} in {plan.folder}, {used:.2f} GPU-hours so far, {time.strftime('%H:%M:%S')}"
    return "\n".join([head, *notes, *lines])
