"""A run as stages, and stages as jobs: who waits for whom, what each needs, how long it may take.

What it is: `build(request)`, a pure function of the request and of what earlier runs measured; tables and a
Mermaid graph of it; its JSON (`runs/RUN/plan.json`). A training stage is a chain of jobs, its segments: each
begins when the one before has not ended well, the stage after begins when one of them has. What it is not:
sbatch's text (`sbatch.py`) or its call (`submission.py`). Look at it: `python -m scripts.launch plan --preset
speedrun`.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import time
from pathlib import Path
from typing import Any, Literal

from nanochat import schedule
from nanochat.common import UsageError, read_json
from nanochat.config import GPTConfig
from nanochat.launch import estimate
from nanochat.launch.request import Asked, Request
from nanochat.launch.sites import ROOT, Site
from nanochat.ledger import LEDGER

Kind = Literal["data", "cpu", "train", "exam", "report"]
KINDS: dict[str, Kind] = {
    "download_data": "data", "sample_world": "data", "tok_train": "cpu", "tok_eval": "cpu",
    "base_train": "train", "mid_train": "train", "chat_sft": "train", "chat_rl": "train", "base_eval": "exam",
    "chat_eval": "exam", "report": "report",
}  # fmt: skip
HOURS = {"data": 4.0, "cpu": 1.0, "exam": 1.0, "report": 0.25}  # of what is not training
SHARE_OF_BASE = 0.15  # a finetuning stage whose length only its data (or its replies) say
MAX_SEGMENTS = 40
ROUND_MINUTES = 15
RUN_NAME = re.compile(r"\w[\w.-]{0,60}", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the recipe as jobs: `segments` of them, each for `minutes` at most."""

    name: str
    script: str
    kind: Kind
    parent: str  # that must be done; "" for the first, and for the report, which waits for all to end
    trains: str  # `base`, `mid`, ...: its run folder is TRAINS_RUN; "" if it trains nothing
    leaves: str  # what it must leave, below the base folder
    data: str = ""  # what it reads, below the base folder
    nodes: int = 1
    ranks: int = 1  # processes of a node
    gpus: int = 0  # of a node
    cpus: int = 1  # of a node
    hours: float = 0.0
    minutes: int = 60
    segments: int = 1

    @property
    def jobs(self) -> list[Job]:
        return [Job(self, k + 1) for k in range(self.segments)]


@dataclasses.dataclass(frozen=True)
class Job:
    """One segment of a stage: what is submitted."""

    stage: Stage
    segment: int

    @property
    def name(self) -> str:
        return f"{self.stage.name}.{self.segment}" if self.stage.kind == "train" else self.stage.name


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run, frozen: nothing that comes later changes it."""

    run: str
    recipe: str
    base_dir: str
    python: str  # of the jobs
    run_id: str
    created: str
    words: tuple[str, ...]
    site: Site
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return Path(self.base_dir) / "runs" / self.run

    @property
    def folders(self) -> list[str]:
        """What its stages work in: the base folder, and data that lie elsewhere."""
        return [self.base_dir, *(s.data for s in self.stages if Path(s.data).is_absolute())]

    @property
    def jobs(self) -> list[Job]:
        return [job for stage in self.stages for job in stage.jobs]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def after(self, stage: Stage) -> list[Stage]:
        """The stages that wait for this one, directly or not, without the report."""
        children = [s for s in self.stages if s.parent == stage.name]
        return children + [s for child in children for s in self.after(child)]


# ----------------------------------------------------------------------------- building


def build(request: Request, run_id: str) -> tuple[Plan, tuple[Asked, ...]]:
    """The plan of a request, and the options of its stages fitted to it.

    UsageError for what cannot run; nothing is written or submitted.
    """
    if not RUN_NAME.fullmatch(request.run):
        raise UsageError(
            f"--run {request.run!r}: use up to 60 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    length = _Length(request)
    fitted = tuple(length.shared(a) if KINDS[a.step.script] == "train" else a for a in request.stages)
    stages: list[Stage] = []
    for asked in fitted:
        stages.append(_stage(asked, request, stages, length))
    plan = Plan(
        request.run, request.recipe, str(request.root), python_of(request.site), run_id,
        time.strftime("%Y-%m-%dT%H:%M:%S%z"), request.words, request.site, tuple(stages),
        tuple(length.notes),
    )  # fmt: skip
    return plan, fitted


def python_of(site: Site) -> str:
    """The site's, else the clone's environment, else the one that is running."""
    ours = ROOT / ".venv" / "bin" / "python"
    return site.python or (str(ours) if ours.exists() else sys.executable)


def _stage(asked: Asked, request: Request, before: list[Stage], length: _Length) -> Stage:
    step, site, kind = asked.step, request.site, KINDS[asked.step.script]
    trains = step.stage if kind == "train" else ""
    stage = Stage(
        asked.slug,
        step.script,
        kind,
        _parent(asked, kind, before),
        trains,
        _leaves(asked, kind, request.run),
        getattr(asked.config, "data_dir", "") if kind == "train" else "",
    )
    if kind == "train":
        ranks = site.ranks
        whole = dataclasses.replace(stage, nodes=site.nodes, ranks=ranks, gpus=site.gpus_per_node)
        return _segmented(dataclasses.replace(whole, cpus=_cpus(site, whole)), length.hours(asked), request)
    hours = HOURS[kind]
    if kind == "exam":
        gpus = site.gpus_per_node if step.ranks > 1 else 1
        stage = dataclasses.replace(stage, ranks=step.ranks, gpus=gpus)
        stage = dataclasses.replace(stage, cpus=_cpus(site, stage))
    else:
        stage = dataclasses.replace(stage, cpus=site.cpus if kind != "report" else 1)
    limit = site.max_hours if stage.gpus else site.cpu_max_hours
    return dataclasses.replace(stage, hours=hours, minutes=int(60 * min(limit, hours)))


def _cpus(site: Site, stage: Stage) -> int:
    return max(1, site.cpus_per_gpu * stage.gpus)


def _parent(asked: Asked, kind: Kind, before: list[Stage]) -> str:
    """Data, then the tokenizer, then the training stages in a row; an exam hangs on the stage it examines."""
    if kind == "report":
        return ""
    if kind == "exam":
        return next(s.name for s in before if s.trains == asked.step.stage)
    if asked.step.script == "tok_eval":
        return next(s.name for s in before if s.script == "tok_train")
    line = [s.name for s in before if s.kind in ("data", "train") or s.script == "tok_train"]
    return line[-1] if line else ""


def _leaves(asked: Asked, kind: Kind, run: str) -> str:
    config, step = asked.config, asked.step
    if kind == "train":
        return f"{step.stage}_{run}/DONE"
    if kind == "exam":
        return f"{step.stage}_{run}/evals/{step.result}.json"
    return {
        "download_data": LEDGER,
        "sample_world": f"{getattr(config, 'data_dir', '')}/manifest.json",
        "tok_train": f"{getattr(config, 'tok_dir', '')}/tokenizer.json",
        "tok_eval": f"{getattr(config, 'tok_dir', '')}/eval.json",
        "report": f"runs/{run}/report/report.json",
    }[step.script]


def _segmented(stage: Stage, hours: float, request: Request) -> Stage:
    """As many segments as the estimate needs and one to spare, each as long as the site allows."""
    site, launch = request.site, request.launch
    limit_minutes = int(60 * site.max_hours)
    usable = site.max_hours - site.stop_margin_s / 3600 - estimate.START_HOURS
    if usable <= 0:
        raise UsageError(
            f"MAX_HOURS={site.max_hours:g} leaves no time before STOP_MARGIN_S={site.stop_margin_s}"
        )
    wanted = ROUND_MINUTES * math.ceil((1.5 * hours * 60 + ROUND_MINUTES) / ROUND_MINUTES)
    minutes = launch.segment_minutes or min(limit_minutes, wanted)
    if minutes > limit_minutes:
        raise UsageError(
            f"--segment-minutes {minutes} is over the limit of the site, MAX_HOURS={site.max_hours:g}"
        )
    segments = launch.segments or math.ceil(hours / usable) + 1
    if site.chain == "none":
        if hours > usable:
            raise UsageError(
                f"{stage.name} takes about {hours:.1f} h and the site gives {site.max_hours:g} h with "
                "CHAIN=none: use more nodes (NODES=...), a smaller --depth, or CHAIN=segments"
            )
        segments = 1
    if segments > MAX_SEGMENTS:
        raise UsageError(
            f"{stage.name} takes about {hours:.0f} h: {segments} jobs of {site.max_hours:g} h, more than "
            f"{MAX_SEGMENTS}. Use more nodes (NODES=...) or a smaller --depth"
        )
    return dataclasses.replace(stage, hours=hours, minutes=minutes, segments=segments)


class _Length:
    """How many tokens a stage trains on, at which rate; refuses a batch that the ranks cannot share."""

    def __init__(self, request: Request) -> None:
        self.site, self.ranks = request.site, request.site.nodes * request.site.ranks
        base = next(asked.config for asked in request.recipe_stages if asked.step.script == "base_train")
        vocab = next(a.config.vocab_size for a in request.recipe_stages if a.step.script == "tok_train")
        self.config: GPTConfig = base.gpt_config(vocab)
        horizon = base.tokens or int(base.ratio * estimate.scaling_parameters(self.config))
        self.batch = base.total_batch_tokens or schedule.batch_tokens(horizon, base.ratio)
        self.base_tokens = self.batch * base.steps if base.steps else horizon
        self.rate = estimate.rate(self.site, self.config, self.ranks)
        self.notes: list[str] = []
        found = estimate.measured(request.root, self.site, base.depth, self.ranks)
        if found:
            self.rate = found[0]
            self.notes.append(f"rate measured in run {found[1]}: {self.rate:,.0f} tokens a second")
        else:
            self.notes.append(f"rate estimated from the hardware's peak: {self.rate:,.0f} tokens a second")

    def hours(self, asked: Asked) -> float:
        config = asked.config
        batch = config.total_batch_tokens or self.batch
        if asked.step.script == "base_train":
            tokens = float(self.base_tokens)
        elif asked.step.script == "chat_rl":
            tokens = SHARE_OF_BASE * self.base_tokens
        elif config.steps or config.tokens:
            tokens = batch * config.steps if config.steps else config.tokens
        else:
            tokens = SHARE_OF_BASE * self.base_tokens
        return estimate.hours(tokens, self.rate)

    def shared(self, asked: Asked) -> Asked:
        """The stage with as many rows a pass as let every rank take whole passes of a step."""
        if asked.step.script == "chat_rl":  # its ranks share problems, any number of them
            return asked
        config, context = asked.config, self.config.context
        batch, rows = config.total_batch_tokens or self.batch, config.device_batch_rows
        legal = [r for r in range(rows, 0, -1) if batch % (r * context * self.ranks) == 0]
        if legal and legal[0] == rows:
            return asked
        what = f"{asked.slug}: a step of {batch:,} tokens cannot be shared by {self.ranks} processes"
        if not legal:
            fits = context * self.ranks
            raise UsageError(f"{what}; use fewer nodes, or --total-batch-tokens {-(-batch // fits) * fits}")
        if asked.origins["device_batch_rows"] == "command line":
            raise UsageError(f"{what} with {rows} rows of {context}; use --device-batch-rows {legal[0]}")
        self.notes.append(
            f"{asked.slug}: {legal[0]} rows a pass instead of {rows}, for {self.ranks} processes"
        )
        return asked.changed(device_batch_rows=legal[0])


# ----------------------------------------------------------------------------- as JSON and as text


def to_dict(plan: Plan) -> dict[str, Any]:
    return dataclasses.asdict(plan)


def load(folder: Path) -> Plan:
    """The plan of a run folder."""
    path = folder / "plan.json"
    if not path.is_file():
        there = sorted(p.parent.name for p in folder.parent.glob("*/plan.json"))
        raise UsageError(
            f"there is no run {folder.name!r} in {folder.parent}; runs are: {', '.join(there) or 'none'}"
        )
    facts = read_json(path)
    stages = tuple(Stage(**stage) for stage in facts.pop("stages"))
    site = Site(**facts.pop("site"))
    return Plan(
        **{**facts, "words": tuple(facts["words"]), "notes": tuple(facts["notes"])}, site=site, stages=stages
    )


def needs(stage: Stage) -> str:
    """`2 nodes x 8 GPUs`, `8 CPUs`."""
    if not stage.gpus:
        return f"{stage.cpus} CPU{'s' * (stage.cpus > 1)}"
    nodes = f"{stage.nodes} nodes x " if stage.nodes > 1 else ""
    return f"{nodes}{stage.gpus} GPU{'s' * (stage.gpus > 1)}"


def clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def describe(plan: Plan) -> str:
    """The plan as a table."""
    site = plan.site
    head = ("stage", "after", "jobs", "limit", "estimate", "on")
    rows = [
        (
            stage.name, stage.parent or ("all" if stage.kind == "report" else "-"), str(stage.segments),
            clock(stage.minutes), f"{stage.hours:.1f} h", needs(stage),
        )
        for stage in plan.stages
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    gpu_hours = sum(s.hours * s.nodes * s.gpus for s in plan.stages)
    cost = (
        f", {gpu_hours * site.price_per_gpu_hour:,.0f} at {site.price_per_gpu_hour:g} each"
        if site.price_per_gpu_hour
        else ""
    )
    return "\n".join([
        f"Run {plan.run}, recipe {plan.recipe}, site {site.name} ({site.status or 'no status'})",
        f"Artifacts in {plan.base_dir}",
        *table,
        f"{len(plan.jobs)} jobs; about {gpu_hours:,.1f} GPU-hours{cost}",
        *plan.notes,
    ])  # fmt: skip


def mermaid(plan: Plan) -> str:
    """The jobs as a Mermaid graph."""
    lines = ["graph LR"]
    for stage in plan.stages:
        for job in stage.jobs:
            lines.append(f"  {stage.name}_{job.segment}[{job.name}]")
            if job.segment > 1:
                lines.append(f"  {stage.name}_{job.segment - 1} -. not ok .-> {stage.name}_{job.segment}")
        if stage.parent:
            ends = [f"{stage.parent}_{job.segment}" for job in plan.stage(stage.parent).jobs]
            lines.append(f"  {' & '.join(ends)} -- {'ok' if len(ends) == 1 else 'one ok'} --> {stage.name}_1")
        elif stage.kind == "report":
            leaves = [
                s for s in plan.stages if s.kind != "report" and s.name not in {c.parent for c in plan.stages}
            ]
            ends = [f"{s.name}_{s.segments}" for s in leaves]
            lines.append(f"  {' & '.join(ends)} -- any end --> {stage.name}_1")
    return "\n".join(lines)
