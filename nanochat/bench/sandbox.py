"""What the sandbox costs: the milliseconds of a call beyond the start of a bare interpreter.

What it is: `run_python("pass")`, strict and off, against `python -I -S -c pass`, alternating, medians.
What it is not: the time of a program. Run: `python -m scripts.bench sandbox --repetitions 50 --json`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

from nanochat.bench import Row, measure, row
from nanochat.config import Bench
from nanochat.execution import Level, run_python


def run(config: Bench) -> Iterator[Row]:
    """Rows `sandbox_LEVEL` (a whole call), `sandbox_bare`, and `sandbox_LEVEL_overhead`, the difference."""
    levels: tuple[Level, ...] = ("strict", "off")
    sides: dict[str, Callable[[], object]] = {
        level: partial(run_python, "pass", level=level) for level in levels
    }
    sides["bare"] = partial(subprocess.run, [sys.executable, "-I", "-S", "-c", "pass"], check=True)
    seconds = measure(sides, config.repetitions)
    medians = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        shares = [1e3 * time / median for time in seconds[name]]  # their median is 1, so the value is ms
        yield row(f"sandbox_{name}", shares, median, "ms", 1)
    for level in levels:
        yield row(f"sandbox_{level}_overhead", [1.0], medians[level] - medians["bare"], "ms", 1)
