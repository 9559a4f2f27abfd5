"""The chat server as a job: submitted with the flags of the site, run in its container.

What it is: `submit`, from a login node, which refuses there what cannot run, and `become`, which turns the
job (or any allocation) into the server: one process under srun, so that Slurm's signals reach it. What it is
not: the server (`nanochat/serve/`) or its address (its log has the ssh line). Run: `bash slurm/serve.slurm
--run exp1`.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from nanochat import configurator, slurm
from nanochat.common import UsageError, base_dir
from nanochat.config_serve import ChatWeb
from nanochat.launch import checks, container, request, sbatch, sites
from nanochat.launch.plan import python_of
from nanochat.launch.sites import ROOT, Site
from nanochat.run_folder import require_checkpoint

SCRIPT = ROOT / "slurm" / "serve.slurm"
HOURS = 4.0


@dataclasses.dataclass(frozen=True)
class Job:
    """What was asked for: the site, the server's options, and the words that say so to the server."""

    site: Site
    hours: float
    config: ChatWeb
    words: tuple[str, ...]

    @property
    def root(self) -> Path:
        return base_dir(self.config.base_dir)

    @property
    def logs(self) -> Path:
        return self.root / "serve"

    @property
    def gpus(self) -> int:
        """One for each copy of the model."""
        return self.config.workers or 1


def read(argv: Sequence[str]) -> Job:
    """UsageError for what neither the site nor the server understands."""
    keys, words = sites.split(argv)
    name, words = request.take(words, "site")
    hours, words = request.take(words, "hours")
    site = sites.load(name, keys)
    config, origins = configurator.parse_traced(ChatWeb, words, prog="serve", about=__doc__)
    if origins["base_dir"] == "default" and site.base_dir:
        config = dataclasses.replace(config, base_dir=site.base_dir)
    _, words = request.take(words, "base-dir")
    words.append(f"--base-dir={base_dir(config.base_dir)}")
    if origins["port"] == "default":
        words.append("--port=0")  # other servers may be on the node
    return Job(site, _hours(hours, site), config, tuple(words))


def _hours(text: str | None, site: Site) -> float:
    if text is None:
        return min(HOURS, site.max_hours)
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= site.max_hours:
        raise UsageError(f"--hours {text}: use a number above 0, at most MAX_HOURS={site.max_hours:g}")
    return hours


# ----------------------------------------------------------------------------- on a login node


def submit(argv: Sequence[str]) -> tuple[str, Path]:
    """The id of the new job and its log. UsageError, before it waits, for what the job would refuse."""
    job = read(argv)
    job = dataclasses.replace(job, site=checks.fit_site(job.site))
    if job.gpus > job.site.gpus_per_node:
        raise UsageError(f"--workers {job.gpus}: a node has GPUS_PER_NODE={job.site.gpus_per_node}")
    image = job.site.image
    if job.site.container != "none" and image.endswith(sites.FILES) and not Path(image).is_file():
        raise UsageError(f"IMAGE={image}: No such file; build it (containers/README.md), or CONTAINER=none")
    require_checkpoint(job.root, job.config.source, job.config.run or f"d{job.config.depth}")
    variables = {k: v for k, v in os.environ.items() if k.startswith("NANOCHAT_")}  # options, too
    job.logs.mkdir(mode=0o700, parents=True, exist_ok=True)  # Slurm does not make it
    said = slurm.call("sbatch", "--parsable", *flags(job), str(SCRIPT), *argv, extra=variables)
    id = said.strip().split(";")[0]
    return id, job.logs / f"serve.{id}.out"


def flags(job: Job) -> list[str]:
    """sbatch's; those of the file itself are for who calls sbatch."""
    site = job.site
    return [
        *sbatch.place(site, on_gpus=True),
        f"--cpus-per-task={max(1, site.cpus_per_gpu * job.gpus)}",
        f"--output={job.logs}/serve.%j.out",
        f"--time={max(1, int(60 * job.hours))}",
        site.gpu_request.format(type=site.gpu_type, gpus=job.gpus),
        *shlex.split(f"{site.extra} {site.gpu_extra}"),
    ]


# ----------------------------------------------------------------------------- in the job


def become(argv: Sequence[str]) -> NoReturn:
    """Be the server, on the first node of the job."""
    job = read(argv)
    words = command(job)
    os.chdir(ROOT)
    os.execvpe(words[0], words, variables(job, os.environ))


def command(job: Job) -> list[str]:
    """srun's words: what it runs gets the signals of Slurm, and pyxis and CSCS hang on it."""
    srun, before, python = container.wrap(job.site, ROOT, _folders(job), python_of(job.site))
    step = ["srun", "--nodes=1", "--ntasks=1", *job.site.srun_extra.split(), *srun]
    return [*step, *before, python, "-m", "scripts.chat_web", *job.words]


def _folders(job: Job) -> list[str]:
    token = [str(Path(job.config.token_file).expanduser().absolute().parent)] if job.config.token_file else []
    return [str(job.root), str(ROOT), *token]


def variables(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    seen = container.variables(job.site, str(job.root), ROOT, {**environ, **job.site.exports})
    own = {k: v for k, v in environ.items() if k.startswith("NANOCHAT_")}
    cpus = environ.get("SLURM_CPUS_PER_TASK")  # srun is not told what sbatch was
    found = {"OMP_WAIT_POLICY": "PASSIVE", **seen, **own, **({"SRUN_CPUS_PER_TASK": cpus} if cpus else {})}
    return container.outdo(job.site, found)
