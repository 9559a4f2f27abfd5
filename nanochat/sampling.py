"""From logits to a token: greedy, temperature, top-k, top-p.

What it is: one function over a batch, driven by one uniform number a row, so that a row's choice needs no
generator shared with its neighbours. What it is not: stopping or tool rules (`engine.py`).
Run: `pytest tests/test_sampling.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat.common import UsageError


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits. Temperature 0 is greedy; then the rest has no effect."""

    temperature: float = 1.0
    top_k: int | None = None  # the k most likely; None or 0 = all
    top_p: float = 1.0  # of these, the fewest that together reach this probability

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature {self.temperature} must be 0 (greedy) or more, and finite")
        if self.top_k is not None and self.top_k < 0:
            raise UsageError(f"top_k {self.top_k} must be at least 1, or 0 to switch it off")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p {self.top_p} must be above 0 and at most 1 (1 switches it off)")


def sample(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """(B, V) logits and (B,) uniform `draws` in [0, 1) -> (B,) token ids, by inverting the CDF.

    Temperature first, then top-k, then top-p (nucleus sampling, arXiv 1904.09751) among what is left.
    Draws are at most 1 - 2**-24, the largest that float32 generators give.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    k = min(sampling.top_k or logits.size(-1), logits.size(-1))
    if k < logits.size(-1) or sampling.top_p < 1:
        logits, ids = logits.topk(k)  # descending
    else:
        ids = None
    # The maximum goes first, so that a tiny temperature cannot make infinity minus infinity.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    probabilities = logits.softmax(dim=-1)
    below = probabilities.cumsum(dim=-1)  # (B, k)
    kept = ((below - probabilities) < sampling.top_p).sum(dim=-1, keepdim=True)  # never 0
    total = below.gather(1, kept - 1)
    choice = torch.searchsorted(below, draws[:, None] * total, right=True)  # < kept, as draw * total < total
    return (choice if ids is None else ids.gather(1, choice))[:, 0]


def uniforms(seeds: Sequence[tuple[int, int]], draws: int, device: torch.device) -> Tensor:
    """(rows, draws) numbers in [0, 1), each row from its own generator."""
    rows = [np.random.default_rng(seed).random(draws, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).to(device)
