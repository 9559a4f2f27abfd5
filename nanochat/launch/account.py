"""What a run has cost: starts, GPU-hours and steps done twice of each stage, lost starts counted.

What it is: `summary`, from `sacct -D` where Slurm keeps accounts (it counts also what its own summary of a
job leaves out: starts that were preempted or lost), else from the run's own ledger, which sees a killed start
to within a heartbeat. What it is not: a bill. Run: `python -m scripts.launch cost RUN`.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanochat import slurm
from nanochat.launch import plan as plans
from nanochat.launch.ledger import Attempt, RunFolder, gpu_hours


@dataclasses.dataclass(frozen=True)
class Cost:
    """One stage."""

    stage: str
    starts: int
    gpu_hours: float
    wall_s: float
    repeated_steps: int
    exit: int | None  # of the last start


def of_stage(stage: str, attempts: list[Attempt], accounted: float | None = None) -> Cost:
    """`accounted`: Slurm's GPU-hours, if it keeps accounts."""
    own = gpu_hours(attempts)
    return Cost(
        stage, len(attempts), own if accounted is None else accounted, sum(a.seconds for a in attempts),
        sum(a.repeated for a in attempts), attempts[-1].exit if attempts else None,
    )  # fmt: skip


def costs(plan: plans.Plan, ask_slurm: bool = True) -> list[Cost]:
    run = RunFolder(plan.folder)
    ids: dict[str, list[str]] = {}
    for job in run.submitted():
        ids.setdefault(job.stage, []).append(job.id)
    known = _accounted(job for jobs in ids.values() for job in jobs) if ask_slurm else {}
    found = []
    for stage in plan.stages:
        hours = [known[job] for job in ids.get(stage.name, []) if job in known]
        found.append(of_stage(stage.name, run.attempts(stage.name), sum(hours) if hours else None))
    return found


def _accounted(ids: Iterable[str]) -> dict[str, float]:
    """Job -> GPU-hours of all its starts; empty where accounting is off."""
    wanted = ",".join(ids)
    if not wanted or not shutil.which("sacct"):
        return {}
    try:
        lines = slurm.call("sacct", "-nPXD", "-j", wanted, "-o", "JobID,ElapsedRaw,AllocTRES").splitlines()
    except slurm.SlurmError:
        return {}
    hours: dict[str, float] = {}
    for line in lines:
        job, elapsed, tres = line.split("|", 2)
        gpus = re.search(r"gres/gpu=(\d+)", tres)
        hours[job] = hours.get(job, 0.0) + int(elapsed or 0) * int(gpus[1] if gpus else 0) / 3600
    return hours


def describe(plan: plans.Plan) -> str:
    """The table that `cost` prints."""
    found, price = costs(plan), plan.site.price_per_gpu_hour
    width = max(len(cost.stage) for cost in found)
    lines = [
        f"{c.stage:<{width}}  {c.starts:>3} starts  {c.gpu_hours:>10.3f} GPU-hours"
        + (f"  {c.repeated_steps} steps done twice" if c.repeated_steps else "")
        for c in found
    ]
    total = sum(cost.gpu_hours for cost in found)
    money = f", {total * price:,.2f} at {price:g} each" if price else ""
    return "\n".join([*lines, f"{'total':<{width}}  {'':>10}  {total:>10.3f} GPU-hours{money}"])


def summary(folder: Path) -> dict[str, Any]:
    """What a report says of a cluster run, in JSON's types; empty if there was none. Asks no Slurm."""
    if not (folder / "plan.json").is_file():
        return {}
    plan, attempts = plans.load(folder), RunFolder(folder).attempts()
    stages = [dataclasses.asdict(cost) for cost in costs(plan, ask_slurm=False) if cost.starts]
    train = next((stage for stage in plan.stages if stage.kind == "train"), None)
    cpu = f"; computed on CPUs, {plan.site.ranks} process(es) a node" if plan.site.device == "cpu" else ""
    return {
        "site": plan.site.name + cpu,
        "nodes": train.nodes if train else 1,
        "gpus_per_node": train.gpus if train else 0,
        "gpu_hours": sum(stage["gpu_hours"] for stage in stages),
        "price_per_gpu_hour": plan.site.price_per_gpu_hour,
        "wall_s": max((a.seen for a in attempts), default=0) - min((a.started for a in attempts), default=0),
        "stages": stages,
    }
