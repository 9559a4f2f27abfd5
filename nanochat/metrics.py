"""What a run says while it trains: one JSON object a line in metrics.jsonl, and a line for who is watching.

Nothing here may stop a training run: when the disk is full, lines are lost and a warning says so. What it is
not: a plotter (`report.py`) or a client of a tracking service. No torch. How to look at it:
`tail -f $NANOCHAT_BASE_DIR/base_RUN/metrics.jsonl`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from nanochat.common import atomic_path, json_safe


def read(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl in file order; none if there is no file.

    A line that was cut off (by a kill, or by a full disk) is left out.
    """
    path = Path(path)
    return (
        [record for line in path.read_bytes().splitlines() if (record := _record(line))]
        if path.exists()
        else []
    )


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class MetricsLog:
    """Appends records `{"step", "time", ...}` to a metrics.jsonl; `path` None (other ranks) writes none."""

    def __init__(self, path: str | Path | None, resume_step: int | None = None) -> None:
        """`resume_step`: the step of the checkpoint that the run goes on from, or -1 if it starts again.

        Records of later steps belong to the part that was lost and are dropped, so that each step stands
        in the file once. None keeps all.
        """
        self.path = None if path is None else Path(path)
        self.failures = 0
        if self.path is None:
            return
        self._guard(self.path.parent.mkdir, parents=True, exist_ok=True)
        if resume_step is not None:
            self._guard(self._drop_after, resume_step)

    def log(self, step: int, **values: Any) -> None:
        """Append one record; `time` is in seconds since 1970. NaN and infinity become null."""
        if self.path is not None:
            record = {"step": step, "time": round(time.time(), 3), **json_safe(values)}
            self._guard(self._append, json.dumps(record, ensure_ascii=False, allow_nan=False))

    def _append(self, line: str) -> None:
        assert self.path is not None
        with open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that was cut off must not swallow this one
                    line = "\n" + line
            file.write(line.encode() + b"\n")

    def _drop_after(self, step: int) -> None:
        assert self.path is not None
        records = read(self.path)
        kept = [record for record in records if record.get("step", 0) <= step]
        if len(kept) < len(records):
            text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
            with atomic_path(self.path) as temp:
                temp.write_text(text, encoding="utf-8")

    def _guard(self, write: Any, *args: Any, **kwargs: Any) -> None:
        """Training goes on without its log; the first failure and each hundredth are said aloud."""
        try:
            write(*args, **kwargs)
        except OSError as error:
            if self.failures % 100 == 0:
                lost = f" ({self.failures + 1} writes have failed)" if self.failures else ""
                print(f"warning: {self.path}: {error}; training goes on{lost}", file=sys.stderr, flush=True)
            self.failures += 1


class Ema:
    """Debiased exponential moving average: the first value counts in full, so there is no climb from zero."""

    def __init__(self, beta: float = 0.9) -> None:
        self.beta, self._sum, self._weight = beta, 0.0, 0.0

    def update(self, value: float) -> float:
        self._sum = self.beta * self._sum + (1 - self.beta) * value
        self._weight = self.beta * self._weight + (1 - self.beta)
        return self.value

    @property
    def value(self) -> float:
        """The average, or NaN before the first value."""
        return self._sum / self._weight if self._weight else float("nan")


def format_seconds(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 05 min, 3 d 04 h."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02d} h"
    if hours:
        return f"{hours} h {minute:02d} min"
    return f"{minutes} min {second:02d} s" if minutes else f"{second} s"


class Progress:
    """A bar on a terminal, else one plain line per `interval_s` (and at the end), with the time that is left.

    Use as a context manager, so that the terminal is given back whatever happens. `enabled` False (a rank
    that is not 0) shows nothing but still averages the loss.
    """

    def __init__(
        self,
        total_steps: int,
        what: str,
        *,
        unit: str = "step",
        interval_s: float = 10.0,
        enabled: bool = True,
    ) -> None:
        self.unit = unit
        self.total_steps, self.what, self.interval_s, self.enabled = total_steps, what, interval_s, enabled
        self.loss = Ema()
        self._done = 0
        self._first: tuple[int, float] | None = None  # the first step compiles: timing starts after it
        self._last_line = float("-inf")
        self._bar = self._make_bar() if enabled and sys.stdout.isatty() else None

    def _make_bar(self) -> Any:
        from rich import progress

        bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[text]}"),
        )
        self._task = bar.add_task(self.what, total=self.total_steps, text="")
        bar.start()
        return bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def eta_s(self, step: int) -> float | None:
        """Seconds left at this process's mean pace, or None as long as no pace is known."""
        if self._first is None or step <= self._first[0]:
            return None
        pace = (time.monotonic() - self._first[1]) / (step - self._first[0])
        return pace * max(0, self.total_steps - step)

    def update(self, step: int, loss: float | None = None, **values: float) -> None:
        """`step` steps are done; `values` are shown in the order given, `tokens_per_s` as tok/s."""
        if loss is not None and math.isfinite(loss):  # one bad step would spoil the average for good
            self.loss.update(loss)
        now, self._done = time.monotonic(), step
        self._first = self._first or (step, now)
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._text(step, values))
        elif now - self._last_line >= self.interval_s or step >= self.total_steps:
            self._last_line = now
            share = f"{100 * step / max(1, self.total_steps):3.0f} %"
            print(f"{self.what} {share}  {self._text(step, values)}", flush=True)

    def add(self, steps: int) -> None:
        """`steps` more are done."""
        self.update(self._done + steps)

    def _text(self, step: int, values: dict[str, float]) -> str:
        parts = [f"{self.unit} {step:,}/{self.total_steps:,}"]
        if not math.isnan(self.loss.value):
            parts.append(f"loss {self.loss.value:.4f}")
        for name, value in values.items():
            parts.append(f"{value:,.0f} tok/s" if name == "tokens_per_s" else f"{name} {value:.4g}")
        left = self.eta_s(step)
        if left is not None and step < self.total_steps:
            parts.append(f"{format_seconds(left)} left")
        return "  ".join(parts)
