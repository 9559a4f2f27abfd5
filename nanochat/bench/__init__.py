"""Benchmarks against the peers people would otherwise use; one module a subject, one JSON line a figure.

What it is: `measure` (alternating, medians) and `Row`, the line that every benchmark prints. What it
is not: profiling, or figures to compare across machines: only ratios of one run count; stored rows of
the peers are in experiments/peers.json for orientation. Run: `python -m scripts.bench step --json`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from nanochat.common import git_state, hardware, read_json

PEERS = Path(__file__).resolve().parents[2] / "experiments" / "peers.json"


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is ours over the peer's; above 1 is better. `spread`: (max - min) / median."""

    name: str
    value: float
    unit: str
    peer: str | None
    ratio: float | None
    threads: int
    n: int
    spread: float
    hardware: str
    commit: str

    def __str__(self) -> str:
        versus = f"  {self.ratio:.2f}x {self.peer}" if self.ratio is not None else ""
        figure = f"{self.name:<28}{self.value:>12,.1f} {self.unit:<8}{self.threads} thread(s)"
        return f"{figure}{versus}  (n={self.n}, spread {self.spread:.0%})"

    def json(self) -> str:
        return json.dumps(asdict(self))


def measure(sides: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each side, alternating A B A B ... after one uncounted round (compilation, caches)."""
    for work in sides.values():
        work()
    return measure_fresh({name: partial(_same, work) for name, work in sides.items()}, repetitions)


def _same(work: Callable[[], object]) -> Callable[[], object]:
    return work


def measure_fresh(
    sides: Mapping[str, Callable[[], Callable[[], object]]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of the work that each side makes, alternating A B A B ...; the making does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, make in sides.items():
            work = make()
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def row(
    name: str,
    seconds: list[float],
    amount: float,
    unit: str,
    threads: int,
    peer: tuple[str, list[float]] | None = None,
) -> Row:
    """A rate (`amount` a repetition) and, with a peer's seconds for the same, the ratio of medians."""
    median = statistics.median(seconds)
    return replace(
        figure(name, amount / median, unit, len(seconds), threads),
        peer=peer[0] if peer else None,
        ratio=statistics.median(peer[1]) / median if peer else None,
        spread=(max(seconds) - min(seconds)) / median,
    )


def figure(name: str, value: float, unit: str, n: int, threads: int) -> Row:
    """A figure that is no rate, from `n` samples."""
    facts = hardware()
    return Row(
        name=name, value=value, unit=unit, peer=None, ratio=None, threads=threads, n=n, spread=0.0,
        hardware=f"{facts['cpu']}, {facts['cores']} cores", commit=git_state()["commit"] or "unknown",
    )  # fmt: skip


def stored(subject: str) -> Iterator[str]:
    """Lines of what peers measured for `subject` on other machines: for orientation, never for a ratio."""
    rows = read_json(PEERS).get(subject, []) if PEERS.exists() else []
    for peer in rows if isinstance(rows, list) else []:
        yield "stored: " + ", ".join(f"{key} {value}" for key, value in peer.items())
