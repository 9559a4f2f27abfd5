"""What is looked at before the first job is submitted: partitions, limits, an earlier run of the same name.

What it is: the site as Slurm knows it (`fit` fills in what the site file leaves open), and refusals with a
remedy, all in one pass. What it is not: data, environment and quota (`nanochat/preflight.py`), or Slurm's own
check of each text (`submission.check`). Run: `python -m scripts.launch plan`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nanochat import slurm
from nanochat.assets import Preflight
from nanochat.common import EXIT_USAGE, UsageError
from nanochat.facts import Site as FactsSite
from nanochat.facts import gather
from nanochat.launch import submission
from nanochat.launch.ledger import RunFolder
from nanochat.launch.plan import Plan
from nanochat.launch.request import Asked, Request
from nanochat.launch.sites import Site
from nanochat.preflight import Finding, exit_code, judge
from nanochat.run_folder import FREE
from nanochat.slurm import Partition

# Script -> what preflight calls its stage.
STAGE_NAMES = {
    "download_data": "data", "sample_world": "data", "tok_train": "tok_train", "tok_eval": "tok_eval",
    "base_train": "base", "base_eval": "base_eval", "mid_train": "mid", "chat_sft": "sft",
    "chat_eval": "chat_eval", "chat_rl": "rl", "report": "report",
}  # fmt: skip
Known = Mapping[str, Partition]
COMMENT = re.compile(r"\s+# .*$")


def fit(asked: Request, environ: Mapping[str, str] = os.environ) -> Request:
    """The request, with its site as Slurm knows it."""
    return dataclasses.replace(asked, site=fit_site(asked.site, environ))


def fit_site(site: Site, environ: Mapping[str, str] = os.environ) -> Site:
    """The site with the partitions that it leaves open, and limits not above theirs."""
    found = slurm.partitions()
    gpu = site.gpu_partition or _with_gpus(site, found).name
    cpu = site.cpu_partition or environ.get("SLURM_JOB_PARTITION") or environ.get("SBATCH_PARTITION", "")
    hours = min(site.max_hours, _limit_hours(gpu, found))
    cpu_hours = min(site.cpu_max_hours, _limit_hours(cpu, found))
    site = dataclasses.replace(
        site, gpu_partition=gpu, cpu_partition=cpu, max_hours=hours, cpu_max_hours=cpu_hours
    )
    problems = [*_missing(site, found), *_too_small(site, found)]
    if problems:
        raise UsageError("\n".join(problems))
    return site


def _with_gpus(site: Site, found: Known) -> Partition:
    """The partition with the wanted GPUs; UsageError if there is none, or more than one."""
    wanted = f"{site.gpus_per_node} {site.gpu_type or 'GPU'}s a node"
    fitting = [p for p in found.values() if p.is_up and _offers(p, site)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UsageError(
            f"no partition has {wanted}; set GPU_PARTITION, GPU_TYPE or GPUS_PER_NODE. There are:"
            f"{_listed(found.values())}"
        )
    raise UsageError(
        f"several partitions have {wanted}; choose one with GPU_PARTITION=...:{_listed(fitting)}"
    )


def _offers(partition: Partition, site: Site) -> bool:
    """Whether its nodes have the GPUs; a cluster that names no types may have the wanted one."""
    gpus = partition.gpus
    untyped = gpus.get("", 0)
    most = gpus.get(site.gpu_type, untyped) if site.gpu_type else max(gpus.values(), default=0)
    return most >= site.gpus_per_node


def _listed(found: Iterable[Partition]) -> str:
    return "".join(f"\n  {partition}" for partition in found)


def _named(names: str, found: Known) -> list[Partition]:
    """The partitions of a key (several are separated by commas), or Slurm's default."""
    wanted = names.split(",") if names else [p.name for p in found.values() if p.is_default]
    return [found[name] for name in wanted if name in found]


def _limit_hours(names: str, found: Known) -> float:
    limits = [p.minutes / 60 for p in _named(names, found) if p.minutes is not None]
    return min(limits, default=float("inf"))


def _missing(site: Site, found: Known) -> list[str]:
    wanted = {"GPU_PARTITION": site.gpu_partition, "CPU_PARTITION": site.cpu_partition}
    return [
        f"{key}={value}: there is no partition {name!r}; there are:{_listed(found.values())}"
        for key, value in wanted.items()
        for name in filter(None, value.split(","))
        if name not in found
    ]


def _too_small(site: Site, found: Known) -> list[str]:
    """A GPU partition without the GPUs."""
    partitions = _named(site.gpu_partition, found)
    if not partitions or any(_offers(p, site) for p in partitions):
        return []
    fitting = [p for p in found.values() if _offers(p, site)]
    others = (
        f"; these have:{_listed(fitting)}" if fitting else "; no partition has: set GPU_TYPE, GPUS_PER_NODE"
    )
    what = f"{site.gpus_per_node} {site.gpu_type or 'GPU'}s a node"
    return [f"GPU_PARTITION={site.gpu_partition} has no {what} ({partitions[0]}){others}"]


# ----------------------------------------------------------------------------- preflight


def look(
    site: Site,
    root: Path,
    config: Preflight,
    in_job: bool | None = None,
    fetches_here: bool = False,
) -> list[Finding]:
    """What preflight finds: all mistakes in one pass, before a submission or at a job's start.

    `in_job` None: whether Slurm's variables say so. `fetches_here`: this node fetches what is lacking.
    """
    if config.image is None and site.container != "none" and site.image.startswith("/"):
        config = dataclasses.replace(config, image=site.image)
    facts = gather(
        root, FactsSite.of(site), config, in_job=in_job, fetches_here=fetches_here, verify=config.verify
    )
    return judge(facts)


def refuse_mistakes(asked: Request, stages: Sequence[str] = (), fetches_here: bool = False) -> None:
    """Before a submission, refuse what is the user's to mend.

    `stages`: preflight's names; none: the recipe's. `fetches_here`: this is the first job, on whose node the
    data will be fetched, and not a login node.
    """
    scripts = {one.step.script for one in asked.stages}
    stages = stages or [name for script, name in STAGE_NAMES.items() if script in scripts]
    config = dataclasses.replace(asked.preflight, stages=",".join(stages))
    found = look(asked.site, asked.root, config, in_job=False, fetches_here=fetches_here)
    lines = [str(finding) for finding in found]
    if exit_code(found) == EXIT_USAGE:
        raise UsageError("nothing was submitted:\n" + "\n".join(lines))
    if lines:
        print("\n".join(lines), flush=True)


# ----------------------------------------------------------------------------- an earlier run of that name


def refuse_live(plan: Plan) -> None:
    """Two submissions of one run would write into one folder."""
    live = submission.live_jobs(plan)
    if live:
        jobs = ", ".join(f"{s.job} {s.id}" for s, _ in live[:4])
        raise UsageError(
            f"run {plan.run} is in the queue ({jobs}{', ...' if len(live) > 4 else ''}): "
            f"look with `python -m scripts.launch status {plan.run}`, or choose another --run"
        )


def refuse_other(plan: Plan, fitted: Sequence[Asked]) -> None:
    """A run that was planned with other options is not gone on with under the same name."""
    folder = RunFolder(plan.folder)
    odd = []
    for asked in fitted:
        path = folder.configs / f"{asked.slug}.toml"
        if not path.is_file():  # a stage that comes behind those of the run
            continue
        there, now = _values(path.read_text(encoding="utf-8")), _values(asked.toml())
        odd += [
            f"{asked.slug}.{name}: there {there.get(name, 'not set')}, now {now.get(name, 'not set')}"
            for name in sorted((there.keys() | now.keys()) - FREE)
            if there.get(name) != now.get(name)
        ]
    if odd:
        more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
        raise UsageError(
            f"run {plan.run} was planned with other options ({'; '.join(odd[:4])}{more}). Go on with it by "
            f"`python -m scripts.launch resume {plan.run}`, choose another --run, or start again with --fresh"
        )


def _values(toml: str) -> dict[str, str]:
    lines = (COMMENT.sub("", line) for line in toml.splitlines() if line and line[0] not in "#[")
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def move_aside(asked: Request) -> None:
    """`--fresh`: what a run of that name left is kept under another."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    places = [asked.root / "runs" / asked.run]
    places += [asked.root / f"{a.step.stage}_{asked.run}" for a in asked.stages if a.step.stage]
    for place in dict.fromkeys(places):
        if place.exists():
            place.rename(place.with_name(f"{place.name}.old.{stamp}"))
