"""A whole run as a list of steps, and the one process that walks it.

What it is: `plan(config)` -> the commands of a recipe, in order, each of them idempotent (a finished
stage says so and ends, a stopped one resumes; an exam that the model has sat is not sat again); `execute`
runs them one after another, keeps `runs/RUN/ledger.json`, and stops where one stops. It loads no torch.
What it is not: Slurm jobs. Run: `python -m scripts.pipeline --preset laptop --dry-run`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from nanochat.common import (
    EXIT_DONE,
    EXIT_STOPPED,
    base_dir,
    bfloat16_units,
    peak_rss_mib,
    read_json,
    write_json,
)
from nanochat.config import Pipeline


@dataclass(frozen=True)
class Step:
    """One command: `python -m scripts.SCRIPT --preset ... ARGS`; `ranks` > 1 starts it under torchrun.

    A stage (`base`, ...) leaves its marker in its run folder, an exam `evals/RESULT.json` in the stage's.
    """

    name: str
    script: str
    args: tuple[str, ...] = ()
    ranks: int = 1
    stage: str = ""
    result: str = ""

    def command(self, config: Pipeline) -> list[str]:
        shared = ["--preset", config.recipe]
        for flag, value in (("--run", config.run), ("--base-dir", config.base_dir)):
            shared += [flag, value] if value else []
        program = [f"scripts.{self.script}", *shared, *self.args]
        if self.ranks == 1:
            return [sys.executable, "-m", *program]
        # Without the -- torchrun would take our --run for a short form of its own --run-path.
        launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={self.ranks}", "-m", "--"]
        return [sys.executable, "-m", *launcher, *program]


def plan(config: Pipeline) -> list[Step]:
    """The steps of a recipe: exams behind mid-training and SFT; on other data bits per byte as well."""
    n = config.nproc
    fresh = ("--fresh",) if config.fresh else ()
    base = Step("base", "base_train", fresh, n, "base")
    mid = Step("mid", "mid_train", fresh, n, "mid")
    sft = Step("sft", "chat_sft", fresh, n, "sft")
    rl = [Step("rl", "chat_rl", fresh, n, "rl")] if config.rl else []
    if config.embedded_world:
        seed = ("--world-seed", str(config.world_seed))
        few = ("--source", "base", "--limit", str(config.control_items))
        return [
            Step("world", "sample_world", seed),
            Step("tokenizer", "tok_train", fresh),
            base,
            Step("controls", "chat_eval", (*few, "--untrained"), 1, "base", "untrained"),
            Step("base exams", "chat_eval", few, 1, "base", "exams"),
            mid,
            Step("mid exams", "chat_eval", ("--source", "mid"), 1, "mid", "exams"),
            sft,
            Step("sft exams", "chat_eval", ("--source", "sft"), 1, "sft", "exams"),
            *rl,
            *(Step("rl exams", "chat_eval", ("--source", "rl"), 1, "rl", "exams") for _ in rl),
            Step("report", "report"),
        ]
    return [
        Step("data", "download_data"),
        Step("tokenizer", "tok_train", fresh),
        Step("tokenizer evaluation", "tok_eval"),
        base,
        Step("base evaluation", "base_eval", (), n, "base", "base"),
        mid,
        Step("mid exams", "chat_eval", ("--source", "mid"), n, "mid", "chat"),
        sft,
        Step("sft exams", "chat_eval", ("--source", "sft"), n, "sft", "chat"),
        Step("sft evaluation", "base_eval", ("--source", "sft", "--evals", "bpb,samples"), n, "sft", "base"),
        *rl,
        *(Step("rl exams", "chat_eval", ("--source", "rl"), n, "rl", "chat") for _ in rl),
        Step("report", "report"),
    ]


def describe(config: Pipeline) -> str:
    """What will happen: place, estimate, and each command, as text."""
    root = base_dir(config.base_dir)
    lines = [f"Recipe {config.recipe}, run {config.run or 'named after its depth'}, artifacts in {root}"]
    if config.minutes_float32:
        lines.append(f"Estimate on 2 cores: {_minutes(config)}; {config.disk_mib:,} MiB of disk; no download")
    elif config.hardware:
        lines.append(f"Needs: {config.hardware}")
    lines += [f"{i:2d}. {step.name:<22} {shown(step, config)}" for i, step in enumerate(plan(config), 1)]
    return "\n".join(lines)


def _minutes(config: Pipeline) -> str:
    fast, slow, units = config.minutes_bfloat16, config.minutes_float32, bfloat16_units()
    if units == "AMX":
        return f"{fast:g} minutes (bfloat16 by AMX)"
    if units is None:
        return f"{slow:g} minutes (float32: this CPU has no bfloat16 units)"
    return f"{fast:g} to {slow:g} minutes (this CPU has {units}; training measures whether it pays)"


def shown(step: Step, config: Pipeline) -> str:
    """A step's command as a person would type it."""
    return " ".join(["python", *step.command(config)[1:]])


class Ledger:
    """`runs/RUN/ledger.json`: when the run began, and what each command took and gave."""

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        fresh = {"recipe": recipe, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "stages": []}
        self.record: dict[str, Any] = read_json(path) if path.is_file() else fresh

    def add(self, step: Step, seconds: float, code: int) -> None:
        entry = {"name": step.name, "args": list(step.args), "wall_s": round(seconds, 2), "rc": code}
        self.record["stages"].append({**entry, "peak_rss_mib": round(peak_rss_mib(), 1)})
        write_json(self.path, self.record)

    def has_done(self, step: Step) -> bool:
        """Whether the last step of that name was this very command, and ended well."""
        last: dict[str, Any] = next(
            (e for e in reversed(self.record["stages"]) if e["name"] == step.name), {}
        )
        return (last.get("args"), last.get("rc")) == (list(step.args), EXIT_DONE)


def execute(config: Pipeline) -> int:
    """Run every step; returns the exit code of the first that does not end with 0."""
    steps, root, run = plan(config), base_dir(config.base_dir), config.run or config.recipe
    ledger = Ledger(root / "runs" / run / "ledger.json", config.recipe)
    for number, step in enumerate(steps, 1):
        what, folder = f"[{number}/{len(steps)}] {step.name}", root / f"{step.stage}_{run}"
        exam = folder / "evals" / f"{step.result}.json"
        if step.result and ledger.has_done(step) and _is_newer(exam, folder / "DONE"):
            print(f"\n{what}: done before", flush=True)
            continue
        print(f"\n{what}: {shown(step, config)}", flush=True)
        started = time.monotonic()
        code = _run(step, config, folder / "STOPPED")
        seconds = time.monotonic() - started
        ledger.add(step, seconds, code)
        print(f"{what}: exit {code} after {seconds:.1f} s", flush=True)
        if code != EXIT_DONE:
            return code
    return EXIT_DONE


def _is_newer(path: Path, than: Path) -> bool:
    return path.is_file() and than.is_file() and path.stat().st_mtime_ns >= than.stat().st_mtime_ns


def _run(step: Step, config: Pipeline, marker: Path) -> int:
    """The exit code of a step: 75 if it was stopped, whatever its launcher made of that.

    Ctrl-C reaches the child by itself, SIGTERM is passed on; the child saves and ends, then so do we.
    torchrun gives 1 for a signal, and 0 if the ranks stopped by themselves: there the marker `STOPPED` is the
    answer.
    """
    signals: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def relay(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if child is not None and number == signal.SIGTERM:
            child.send_signal(number)

    seen = _age(marker)
    before = {number: signal.signal(number, relay) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(step.command(config), env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ})
        if signal.SIGTERM in signals:  # it came before there was a child
            child.terminate()
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return EXIT_STOPPED if signals or _age(marker) not in (None, seen) else code


def _age(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None
