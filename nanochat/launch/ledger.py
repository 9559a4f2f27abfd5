"""What happened to a run's jobs: `jobs.json` (what was submitted) and `attempts/` (what each start of a job
came to).

What it is: files in `runs/RUN/`, each written by one process and whole, so that jobs on different nodes need
no lock. An attempt is one start of one job, `base.2-1234-0.json`: job, restart, nodes, the step it began at,
when it was last seen alive, how it ended. GPU-hours and steps done twice follow from them, also where Slurm
keeps no accounts. What it is not: Slurm's own view (`nanochat/slurm.py`). Look at it: `python -m
scripts.launch cost RUN`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanochat import metrics
from nanochat.common import read_json, write_json

DONE, STOPPED, FAULT, KILLED = "done", "stopped", "fault", "killed"  # killed: Slurm ended it unsaved
HOLD = "HOLD"  # a file: no job of the run begins while it is there


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A job that Slurm has taken."""

    job: str
    stage: str
    id: str
    time: float
    after: str = ""  # the dependency, as it was given to sbatch


@dataclasses.dataclass
class Attempt:
    """One start of one job. `ended` None: it runs, or was killed without a word."""

    job: str
    stage: str
    id: str
    restart: int
    nodes: list[str]
    gpus: int  # of all nodes
    started: float
    seen: float
    step: int | None = None  # of the checkpoint that it began from
    reached: int | None = None  # the last step that was ever done before it began
    last: int | None = None  # the last step at its end
    ended: float | None = None
    outcome: str = ""
    reason: str = ""
    exit: int | None = None

    @property
    def seconds(self) -> float:
        return (self.ended or self.seen) - self.started

    @property
    def repeated(self) -> int:
        """Steps that had been done before and are done again."""
        return max(0, (self.reached or 0) - (self.step or 0))


class RunFolder:
    """`runs/RUN/` below the base folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs, self.texts, self.configs = path / "logs", path / "slurm", path / "config"
        self.code = path / "code"
        self.jobs_file, self.attempts_folder = path / "jobs.json", path / "attempts"

    def log(self, stage: str) -> str:
        """Slurm's pattern of a job's output."""
        return f"{str(self.logs).replace('%', '%%')}/{stage}.%j.out"

    # ------------------------------------------------------------------ what was submitted

    def submitted(self) -> list[Submitted]:
        """All of the run's jobs in the order of their submission; a resumed run has some twice."""
        if not self.jobs_file.is_file():
            return []
        return [Submitted(**facts) for facts in read_json(self.jobs_file)["jobs"]]

    def add_job(self, job: Submitted) -> None:
        """Only one process submits at a time, and it records each job before the next."""
        jobs = [dataclasses.asdict(known) for known in [*self.submitted(), job]]
        write_json(self.jobs_file, {"jobs": jobs})

    # ------------------------------------------------------------------ what became of it

    def attempts(self, stage: str | None = None) -> list[Attempt]:
        """Every start of every job (of a stage), in the order of time."""
        found = [Attempt(**read_json(path)) for path in self.attempts_folder.glob("*.json")]
        return sorted((a for a in found if stage in (None, a.stage)), key=lambda a: a.started)

    def write(self, attempt: Attempt) -> None:
        name = f"{attempt.job}-{attempt.id}-{attempt.restart}.json"
        write_json(self.attempts_folder / name, dataclasses.asdict(attempt))

    def is_done(self, stage: str) -> bool:
        return any(attempt.outcome == DONE for attempt in self.attempts(stage))

    # ------------------------------------------------------------------ bad nodes

    def bad_nodes(self) -> dict[str, str]:
        """Nodes that failed a check, and why: none of the run's jobs is to use them."""
        path = self.path / "exclude.json"
        return dict(read_json(path)) if path.is_file() else {}

    def add_bad_nodes(self, found: dict[str, str]) -> None:
        write_json(self.path / "exclude.json", self.bad_nodes() | found)

    # ------------------------------------------------------------------ holding

    def held(self) -> bool:
        return (self.path / HOLD).is_file()

    def hold(self, why: str) -> None:
        write_json(self.path / HOLD, {"why": why, "time": time.time()})

    def release(self) -> None:
        (self.path / HOLD).unlink(missing_ok=True)


def started_again(attempt: Attempt, attempts: Iterable[Attempt]) -> bool:
    """Whether Slurm has started its job once more: then what ended it was Slurm's doing, whatever it says.

    When a node dies, its ranks' peers fail first, and that start may have written down a fault.
    """
    return any(other.id == attempt.id and other.restart > attempt.restart for other in attempts)


def checkpoint_step(folder: Path) -> int | None:
    """Step of the newest committed checkpoint of a stage's run folder, by its name; None without one."""
    steps = [int(p.name[5:]) for p in folder.glob("checkpoints/step_*") if p.name[5:].isdigit()]
    return max(steps, default=None)


def last_step(folder: Path) -> int | None:
    """The last step that a stage's log tells of."""
    steps = [r["step"] for r in metrics.read(folder / "metrics.jsonl") if r.get("loss") is not None]
    return steps[-1] if steps else None


def gpu_hours(attempts: list[Attempt]) -> float:
    return sum(a.seconds * a.gpus for a in attempts) / 3600


def progress(folder: Path) -> dict[str, Any]:
    """The last training record of a stage's run folder."""
    records = [r for r in metrics.read(folder / "metrics.jsonl") if r.get("loss") is not None]
    return records[-1] if records else {}
