"""The text of a job, a pure function of plan and job: `#SBATCH` lines, the site's environment, one body for
all.

What it is: text. What is different from site to site comes from the site file, what is different from job to
job is the last line's arguments. What it is not: submission (`submission.py`) or the body (`body.py`). Look
at it: `python -m scripts.launch plan --preset tiny --site lab --texts`.
"""

from __future__ import annotations

import shlex

from nanochat.common import UsageError
from nanochat.launch.ledger import RunFolder
from nanochat.launch.plan import Job, Plan
from nanochat.launch.sites import Site


def flags(plan: Plan, job: Job) -> list[str]:
    """sbatch's flags for a job, one a line. What the site leaves empty is not passed."""
    site, stage = plan.site, job.stage
    on_gpus = stage.gpus > 0
    found = [
        f"--job-name={plan.run}-{job.name}",
        f"--output={RunFolder(plan.folder).log(stage.name)}",
        "--open-mode=append",
        "--requeue",
        f"--comment=nanochat:{plan.run_id}:{job.name}",
        *place(site, on_gpus),
        f"--nodes={stage.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={stage.cpus}",
        f"--time={stage.minutes}",
    ]
    if on_gpus:
        found.append(site.gpu_request.format(type=site.gpu_type, gpus=stage.gpus))
    if stage.kind == "train" and site.stop_margin_s:
        found.append(f"--signal=B:USR1@{site.stop_margin_s}")
    if stage.kind == "report" and site.mail_user:
        found += [f"--mail-user={site.mail_user}", "--mail-type=END"]
    return found + shlex.split(f"{site.extra} {site.gpu_extra if on_gpus else site.cpu_extra}")


def place(site: Site, on_gpus: bool) -> list[str]:
    """Who pays, and for which nodes."""
    partition, qos, memory = (
        (site.gpu_partition, site.qos, site.gpu_memory)
        if on_gpus
        else (site.cpu_partition, site.cpu_qos, site.cpu_memory)
    )
    optional = {
        "account": site.account, "partition": partition, "qos": qos, "mem": memory, "exclude": site.exclude,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in optional.items() if value]


def text(plan: Plan, job: Job) -> str:
    """The batch script of a job."""
    site, folder = plan.site, RunFolder(plan.folder)
    lines = [
        # A login shell has the command `module`.
        "#!/bin/bash -l" if site.modules else "#!/bin/bash",
        f"# {job.name} of run {plan.run}; what it is doing: python -m scripts.launch status {plan.run}",
        *(f"#SBATCH {_quoted(flag)}" for flag in flags(plan, job)),
        "set -eo pipefail",
        *setup(site),
        f"cd {shlex.quote(str(folder.code))}",
        f"exec {shlex.quote(plan.python)} -m nanochat.launch.body {shlex.quote(str(folder.path))} {job.name}",
    ]
    return "\n".join([*lines, ""])


def setup(site: Site) -> list[str]:
    """Lines that make the site's environment."""
    modules = [f"module load {name}" for name in site.modules.split()]
    return modules + [f"export {name}={shlex.quote(value)}" for name, value in sorted(site.exports.items())]


def _quoted(flag: str) -> str:
    """A flag as sbatch reads it from a #SBATCH line."""
    if any(c in flag for c in '"\\\n#'):
        raise UsageError(
            f"{flag!r} cannot stand in a batch script; choose a --base-dir without quotes, # and \\"
        )
    return f'"{flag}"' if {" ", "'"} & set(flag) else flag
