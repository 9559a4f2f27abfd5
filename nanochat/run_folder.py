"""A run's folder: who may write in it, how it says what it is, and how to stop the run in it.

What it is: `config.json`, `env.json`, one of the markers `DONE|STOPPED|FAULT`, the refusal of a folder that
was made with another config, and the stop flag (SIGINT, SIGTERM, SIGUSR2, a file named `STOP`, a time
limit). What it is not: checkpoints (`checkpoint_manager.py`). No torch.
Run: `pytest tests/test_run_folder.py`; to stop a run from another terminal: `touch base_RUN/STOP`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Any

from nanochat.common import (
    EXIT_USAGE,
    UsageError,
    base_dir,
    environment,
    launched,
    print0,
    read_json,
    write_json,
)
from nanochat.config import Training
from nanochat.configurator import to_dict

MARKERS = ("DONE", "STOPPED", "FAULT")
# options that do not change what is trained: a rerun may change them
FREE = {
    "run", "base_dir", "data_dir", "tok_dir", "device", "threads", "compile", "device_batch_rows",
    "keep_last", "fresh", "stop_at_step", "max_minutes", "deadline", "log_every_steps", "save_every_steps",
    "eval_every_steps", "sample_every_steps",
}  # fmt: skip
SAME_SIGNAL_S = 2.0  # torchrun repeats a Ctrl-C that its ranks have had from the terminal, too


HOW_TO_MAKE = "`bash scripts/local_cpu_train.sh` makes one (run laptop) in minutes: then --preset laptop"


def require_checkpoint(root: Path, stage: str, run: str) -> None:
    """UsageError that says how to make one, before torch is imported or a job waits."""
    if not any((root / f"{stage}_{run}" / "checkpoints").glob("step_*")):
        there = sorted(p.parent.parent.name for p in root.glob("*_*/checkpoints/step_*"))
        raise UsageError(
            f"no checkpoint of stage {stage} of run {run} in {root}; "
            f"there are: {', '.join(dict.fromkeys(there)) or 'none'}. {HOW_TO_MAKE}"
        )


class StopFlag:
    """Set by a signal, read at step boundaries. A second, later Ctrl-C raises KeyboardInterrupt at once.

    Use as a context manager in the main thread: it takes the signals over and gives them back.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self, max_minutes: float | None = None, deadline: float | None = None) -> None:
        """Sets itself after `max_minutes`, and at `deadline`, in seconds since 1970."""
        self.first_s: float | None = None
        limits = [] if max_minutes is None else [60 * max_minutes]
        limits += [] if deadline is None else [deadline - time.time()]
        self.deadline = time.monotonic() + min(limits, default=float("inf"))

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first_s is None:
            self.first_s = now
        elif number == signal.SIGINT and now - self.first_s > SAME_SIGNAL_S:
            raise KeyboardInterrupt

    def is_set(self) -> bool:
        return self.first_s is not None or time.monotonic() >= self.deadline


class RunFolder:
    """`base_RUN/` and its like below the base folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"

    def is_done(self) -> bool:
        return (self.path / "DONE").is_file()

    def stop_requested(self) -> bool:
        return (self.path / "STOP").is_file()

    def prepare(self, config: Training) -> None:
        """Make the folder, or check that what it holds was trained with this config. Rank 0 only."""
        self._occupy()
        if config.fresh and self.path.exists():
            aside = self.path.with_name(
                f"{self.path.name}.old.{time.strftime('%Y%m%d-%H%M%S')}.{os.getpid()}"
            )
            self.path.rename(aside)
            print0(f"--fresh: the old run is kept in {aside}")
            self._occupy()
        record = self.path / "config.json"
        if any(self.path.glob("checkpoints/step_*")) and record.is_file():
            self._check_same(read_json(record), to_dict(config))
        else:
            write_json(record, to_dict(config))
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def _occupy(self) -> None:
        """Refuse a folder in which another process trains.

        The lock is the kernel's and ends with its process. It keeps a user from a mistake; filesystems that
        have no locks, or grant one to everybody, let the mistake through. In a Slurm job it only warns: the
        lock of a node that died can outlive it, and must not keep the requeued job from resuming.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  as long as this process
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._lock.seek(0)
            holder = f"{self.path}: {self._lock.read() or 'another process'} trains in it"
            if "SLURM_JOB_ID" not in os.environ:
                stop = f"touch {self.path / 'STOP'}"
                raise UsageError(f"{holder}; stop that one ({stop}) or give another --run") from None
            print0(f"warning: {holder}, or died with its node")
        except OSError:
            pass

    def _check_same(self, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
        odd = [key for key in sorted({*ours, *theirs} - FREE) if ours.get(key) != theirs.get(key)]
        if odd:
            lines = "; ".join(f"{key}: there {theirs.get(key)!r}, now {ours.get(key)!r}" for key in odd)
            raise UsageError(
                f"{self.path} was made with another config ({lines}). "
                "Give the old values, another --run, or --fresh"
            )

    def start(self) -> None:
        """Clear what the last attempt left and record this one's environment. Rank 0 only."""
        for name in ("STOP", *MARKERS):
            (self.path / name).unlink(missing_ok=True)
        record = self.path / "env.json"
        attempts = read_json(record)["attempts"] if record.is_file() else []
        write_json(record, {"attempts": [*attempts, environment()]})

    def mark(self, marker: str, facts: dict[str, Any]) -> None:
        """Leave `DONE`, `STOPPED` or `FAULT`: the last word counts, so there is only one of them."""
        assert marker in MARKERS
        write_json(self.path / marker, facts)
        for other in set(MARKERS) - {marker}:
            (self.path / other).unlink(missing_ok=True)

    def fault(self, error: Exception) -> None:
        """Leave `FAULT` with the reason, unless the run was done. Any rank may; it waits for none."""
        with contextlib.suppress(OSError):  # the error itself is what the user must see
            if not self.is_done():
                usage = {"exit": EXIT_USAGE} if isinstance(error, UsageError) else {}
                self.mark("FAULT", {"reason": f"{type(error).__name__}: {error}", **usage})


def claim(stage: str, config: Training) -> RunFolder | None:
    """The folder `STAGE_RUN/`, checked and ready to train in; None if the run in it is finished.

    Comes before torch is imported: another config's folder and a place that cannot be written are refused at
    once. With several ranks, rank 0 checks and `runner.train` tells the others whether it is finished.
    """
    folder = RunFolder(base_dir(config.base_dir) / f"{stage}_{config.run_name}")
    rank, _, ranks = launched()
    if rank == 0:
        folder.prepare(config)
    if ranks == 1 and folder.is_done():
        print0(f"{folder.path} is finished; nothing to do (--fresh starts again)")
        return None
    return folder
