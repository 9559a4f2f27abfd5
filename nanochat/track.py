"""A run's metrics for a tracking service, from its metrics.jsonl: on request, beside the run or after it.

What it is: `send(root, run, ...)`, one wandb run a stage, kept in `wandb/` below the base folder unless
`online`. What it is not: part of training. A tracker that hangs, lacks a key or has no network cannot end a
run that does not know of it, and compute nodes need no network. No torch. Run: `python -m scripts.track --run
exp1`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from nanochat import metrics
from nanochat.common import UsageError, read_json

STAGES = ("base", "mid", "sft", "rl")


def history(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(step, all that was recorded at it) of a metrics.jsonl, in order."""
    for step, records in groupby(metrics.read(path), key=lambda record: int(record["step"])):
        values = {name: value for record in records for name, value in record.items()}
        yield step, {name: value for name, value in values.items() if name != "step" and value is not None}


def send(root: Path, run: str, project: str, *, online: bool = False) -> list[Path]:
    """Hand over every stage that has metrics; returns the folders that `wandb sync` takes.

    A stage has the same id each time, so that what is sent again replaces what was there.
    """
    stages = [stage for stage in STAGES if (root / f"{stage}_{run}" / "metrics.jsonl").is_file()]
    if not stages:
        raise UsageError(f"run {run!r} in {root} has no metrics yet; is the name right, and --base-dir?")
    try:
        import wandb
    except ImportError as error:
        raise UsageError("wandb is not installed: bash env/setup.sh --extras track") from error
    folders = []
    for stage in stages:
        folder = root / f"{stage}_{run}"
        tracked = wandb.init(
            project=project, name=f"{run} {stage}", group=run, job_type=stage, dir=root,
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
            config=read_json(folder / "config.json"),
            mode="online" if online else "offline",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
        for step, values in history(folder / "metrics.jsonl"):
            tracked.log(values, step=step)
        folders.append(Path(tracked.dir).parent)
        tracked.finish()
    return folders
