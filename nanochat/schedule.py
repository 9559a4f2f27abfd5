"""Schedules and horizons: pure functions of numbers.

What it is: the learning-rate and momentum curves over a run, and what follows from the one dial
(`--depth`): horizon, batch, learning-rate and weight-decay scales (recipe.md 1.7; the batch law is
nanochat's fit B ~ D^0.383). What it is not: optimizer code. Run: `pytest tests/test_schedule.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REFERENCE_BATCH_TOKENS = 2**19  # the batch at which the learning rates were tuned
REFERENCE_SCALING_PARAMETERS = 110_100_480  # d12: where the batch law is anchored
MAX_DECAY_SCALE = 1.0  # weight decay grows as 1/tokens; below d12 the law was never fitted, so it stops here


@dataclass(frozen=True)
class Schedule:
    """Multipliers over a run of `total` steps. `at(step)` is for the update numbered `step`, from 0."""

    total: int
    warmup: int = 40
    warmdown_ratio: float = 0.65
    final_ratio: float = 0.05
    momentum_warmup: int = 400

    def at(self, step: int) -> float:
        """Learning-rate multiplier in [0, 1]: linear up, flat, linear down to `final_ratio`."""
        assert 0 <= step < max(1, self.total), f"step {step} is outside a run of {self.total}"
        up = (step + 1) / self.warmup if step < self.warmup else 1.0
        return min(up, self._down(step, self.final_ratio))

    def momentum(self, step: int) -> float:
        """Muon's momentum: .85 -> .97 over its own warm-up, -> .90 while the learning rate falls."""
        peak = 0.85 + 0.12 * min(1.0, step / max(1, self.momentum_warmup))
        return 0.90 + (peak - 0.90) * self._down(step, 0.0) if peak > 0.90 else peak

    def decay(self, step: int) -> float:
        """Weight-decay multiplier: a half cosine from 1 to 0."""
        return 0.5 * (1 + math.cos(math.pi * step / max(1, self.total)))

    def _down(self, step: int, final: float) -> float:
        length = max(1, round(self.warmdown_ratio * self.total))
        left = (self.total - step) / length
        return 1.0 if left >= 1 else final + (1 - final) * left


def batch_tokens(horizon_tokens: int, ratio: float) -> int:
    """Tokens of one step for a run of `horizon_tokens`: a power of two near 2^19 (D / D_d12)^0.383."""
    reference = ratio * REFERENCE_SCALING_PARAMETERS
    return int(2 ** round(math.log2(REFERENCE_BATCH_TOKENS * (horizon_tokens / reference) ** 0.383)))


def batch_lr_scale(total_batch_tokens: int) -> float:
    """Learning rates grow with the square root of the batch."""
    return math.sqrt(total_batch_tokens / REFERENCE_BATCH_TOKENS)


def weight_decay(total_batch_tokens: int, horizon_tokens: int, ratio: float) -> float:
    """Muon's cautious weight decay: .28 at d12, inverse in the horizon, clamped for short ones."""
    scale = ratio * REFERENCE_SCALING_PARAMETERS / horizon_tokens
    return 0.28 * min(MAX_DECAY_SCALE, batch_lr_scale(total_batch_tokens) * scale)
