"""What this machine is fast at: compute precision and CPU threads, measured rather than guessed.

What it is: two short measurements (tens of milliseconds) made once at the start of a run, each said in
one line. What it is not: a benchmark (`scripts/bench.py`). Run: `python -m nanochat.probe`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from nanochat.common import bfloat16_units

TOLERANCE = 1.25  # how much slower than the fastest a larger number of threads may measure
PROBE_SIZE = 128  # a bf16 product of 1,024 takes 2 s where the CPU only emulates it; one of 128 takes 4 ms


def pick_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Compute precision for `auto`, `float32` or `bfloat16`, and the reason in words."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name], "as asked"
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
        return (
            (torch.bfloat16, "compute capability 8 or more") if fast else (torch.float32, "no bfloat16 units")
        )
    if device.type != "cpu":
        return torch.float32, f"default on {device.type}"
    if bfloat16_units() is None:
        return torch.float32, "this CPU has neither AMX nor AVX512-BF16"
    gain = bfloat16_gain()
    return (torch.bfloat16 if gain > 1 else torch.float32), f"bfloat16 products measured {gain:.1f}x float32"


def bfloat16_gain() -> float:
    """How many times as fast as in float32 this CPU multiplies in bfloat16."""
    float32_s, bfloat16_s = (_product_seconds(dtype) for dtype in (torch.float32, torch.bfloat16))
    return float32_s / bfloat16_s


def pick_threads(asked: int | None) -> int:
    """CPU threads: as asked, else as many of the usable cores as still help.

    More threads win ties: a busy neighbour during the probe must not halve the whole run.
    """
    if asked is not None:
        if asked < 1:
            raise ValueError(f"threads {asked}: use 1 or more")
        return asked
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    candidates = sorted({1, max(1, usable // 2), usable})
    if "OMP_NUM_THREADS" in os.environ or len(candidates) == 1:
        return torch.get_num_threads()
    seconds = {n: _product_seconds(torch.float32, size=768, threads=n) for n in candidates}
    return max(n for n in candidates if seconds[n] <= TOLERANCE * min(seconds.values()))


def _product_seconds(dtype: torch.dtype, size: int = PROBE_SIZE, threads: int | None = None) -> float:
    """Best of seven square products after one that warms up."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    x = torch.randn(size, size).to(dtype)
    seconds = [_timed(lambda: x @ x) for _ in range(8)]
    torch.set_num_threads(before)
    return min(seconds[1:])


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print("dtype", *pick_dtype("auto", torch.device("cpu")), "| threads", pick_threads(None))
