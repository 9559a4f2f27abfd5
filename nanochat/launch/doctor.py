"""What is wrong with a run, or with this place to launch one, and what to do about it.

What it is: a list of findings, each with a remedy, from the queue, the ledger and the ends of the logs. What
it is not: preflight, which looks before a run (`python -m scripts.preflight`). Run: `python -m scripts.launch
doctor RUN`.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from nanochat import slurm
from nanochat.launch import ledger, policy, submission
from nanochat.launch.ledger import RunFolder
from nanochat.launch.plan import Plan

TAIL_BYTES = 20_000
# What a log says at its end -> what to do. The first that matches speaks.
SYMPTOMS = (
    (r"CUDA out of memory|OutOfMemoryError", "the GPU's memory is too small: a smaller --device-batch-rows"),
    (r"No space left on device|Disk quota exceeded", "the disk or quota is full: free some, then resume"),
    (r"NCCL error|ncclSystemError|Connection refused.*(MASTER|rendezvous)",
     "the nodes cannot talk: set NET_IFNAME to the fast interface (ip link), HOST_SUFFIX if names need one"),
    (r"no network in this job|offline mode|Max retries exceeded|Could not resolve host",
     "a file is missing and there is no network: python -m scripts.download_data, then resume"),
    (r"NotFinite", "the loss became NaN: lower --lr-scale (under another --run), or look at that batch"),
    (r"made with another config", "the stage's folder belongs to another run: choose another --run"),
    (r"module load .* failed|Unable to locate a modulefile", "a module is gone: mend MODULES"),
    (r"No module named", "the jobs' Python lacks a package: bash scripts/setup_environment.sh"),
)  # fmt: skip


def place() -> Iterator[tuple[str, str]]:
    """(what is wrong here, whatever the run; its remedy)."""
    for tool in ("sbatch", "squeue", "scontrol", "sinfo", "scancel"):
        if not shutil.which(tool):
            yield f"{tool} is not on PATH", "use a login node of the cluster, or load Slurm's module"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield "this Python is not 3.10 to 3.13", "bash scripts/setup_environment.sh, then .venv/bin/python"


def run(plan: Plan) -> Iterator[str]:
    """What is wrong with a run."""
    folder = RunFolder(plan.folder)
    if folder.held():
        yield f"the run is held: python -m scripts.launch resume {plan.run}"
    for job, queued in submission.live_jobs(plan):
        if queued.reason in (
            "DependencyNeverSatisfied",
            "PartitionTimeLimit",
            "AssocMaxWallDurationPerJobLimit",
        ):
            yield f"{job.job} {job.id} will never start ({queued.reason}): scancel {job.id}, then resume"
    for node, why in folder.bad_nodes().items():
        yield f"node {node} is not used any more ({why}): tell the site; exclude.json takes it in again"
    yield from _stages(plan, folder)


def _stages(plan: Plan, folder: RunFolder) -> Iterator[str]:
    live = {job.stage for job, _ in submission.live_jobs(plan)}
    for stage in plan.stages:
        if policy.finished(plan, stage):
            continue
        faults = [a for a in folder.attempts(stage.name) if a.outcome == ledger.FAULT]
        if faults:
            log = Path(folder.log(stage.name).replace("%j", faults[-1].id).replace("%%", "%"))
            yield f"{faults[-1].job} failed: {faults[-1].reason}\n    {remedy(tail(log))}\n    log: {log}"
        elif stage.name not in live and not any(s.stage in live for s in folder.submitted()):
            yield f"{stage.name} is neither done nor queued: python -m scripts.launch resume {plan.run}"
            return


def tail(log: Path) -> str:
    """The end of a log, with what its processes said last."""
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")


def remedy(text: str) -> str:
    known = (what for pattern, what in SYMPTOMS if re.search(pattern, text))
    return next(known, "nothing known in its log; mend the cause, then resume (--new-code for changed code)")


def describe(plan: Plan | None) -> str:
    """What `doctor` prints; "" if nothing is wrong."""
    found = [f"{text}: {remedy}" for text, remedy in place()]
    if plan is not None and not found:
        try:
            found += run(plan)
        except slurm.SlurmError as error:
            found.append(f"Slurm gives no answer: {error}")
    return "\n".join(f"- {finding}" for finding in found)
