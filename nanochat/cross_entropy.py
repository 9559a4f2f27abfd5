"""Cross-entropy of a soft-capped output head that never holds all logits at once.

What it is: one autograd function from hidden states to the summed loss. It walks the tokens in
chunks, so that a chunk's logits stay in cache, and makes the gradient in the same pass (the loss is
the last thing in the graph, its incoming gradient is a scalar). Each token's loss may count by a factor of
its own. Twin: `gpt.GPT.logits` followed by `F.cross_entropy`, in the tests. What it is not: the logits for
sampling (`gpt.GPT.logits`).

Why: at V = 8,192 the plain head spends more time moving (tokens, V) floats through memory than
multiplying; see experiments/LOG.md. A low soft cap bounds the logits, so no maximum is subtracted.

Legend: N tokens, C features, V vocabulary. Run: `pytest tests/test_gpt.py -k cross_entropy`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 8 << 20  # fp32 logits of one chunk: about one core's share of a last-level cache
MAX_BARE_SOFTCAP = 30.0  # up to here exp(logit), summed over any vocabulary, is far from float32's limits


def _chunk_rows(tokens: int, vocab: int, on_gpu: bool) -> int:
    if on_gpu:  # large enough to fill the device, small enough not to matter in memory
        return min(tokens, 8192)
    return max(64, min(tokens, CHUNK_BYTES // (4 * vocab) // 64 * 64))


def _losses_and_slope(z: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """Raw logits (n, V) -> losses (n, 1) and the gradient of their sum with respect to `z` (n, V)."""
    z = z.float()
    capped, slope = z, torch.ones_like(z[:1, :1])
    if softcap > 0:
        squashed = torch.tanh(z / softcap)
        capped, slope = softcap * squashed, 1 - squashed * squashed
    is_bounded = 0 < softcap <= MAX_BARE_SOFTCAP
    offset = 0.0 if is_bounded else capped.amax(-1, keepdim=True)
    exponent = torch.exp(capped if is_bounded else capped - offset)
    total = exponent.sum(-1, keepdim=True)
    counted = (targets >= 0)[:, None]
    index = targets.clamp_min(0)[:, None]
    losses = (torch.log(total) + offset - capped.gather(-1, index)) * counted
    one_hot = torch.arange(z.size(-1), device=z.device)[None] == index
    gradient = (exponent / total - one_hot.to(z.dtype)) * slope * counted
    return losses, gradient


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, factors: Tensor | None
    ) -> Tensor:
        rows = _chunk_rows(hidden.size(0), weight.size(0), hidden.is_cuda)
        head = weight.to(hidden.dtype)
        loss = torch.zeros((), device=hidden.device)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for start in range(0, hidden.size(0), rows):
            h, t = hidden[start : start + rows], targets[start : start + rows]
            losses, dz = _losses_and_slope(h @ head.T, t, softcap)
            if factors is not None:
                chunk_factors = factors[start : start + rows, None]
                losses, dz = losses * chunk_factors, dz * chunk_factors
            dz = dz.to(hidden.dtype)
            loss = loss + losses.sum()
            d_hidden[start : start + rows] = dz @ head
            d_weight += dz.T @ h  # a chunk's sum in the compute precision, the sum of chunks in float32
        ctx.save_for_backward(d_hidden, d_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grads[0].to(d_hidden.dtype), d_weight * grads[0], None, None, None


def softcap_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, factors: Tensor | None = None
) -> Tensor:
    """Sum of the cross-entropies in nats, float32 scalar.

    hidden (N, C), weight (V, C), targets (N,) with -1 = not counted; softcap 0 = none; factors (N,): what
    each loss is multiplied by.
    """
    if torch.is_grad_enabled():
        return _ChunkedLoss.apply(hidden, weight, targets, softcap, factors)
    losses = softcap_cross_entropies(hidden, weight, targets, softcap)
    return (losses if factors is None else losses * factors).sum()


@torch.no_grad()
def softcap_cross_entropies(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """(N,) the cross-entropies themselves, 0 where the target does not count; for measuring only."""
    rows = _chunk_rows(hidden.size(0), weight.size(0), hidden.is_cuda)
    chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
    head = weight.to(hidden.dtype)
    return torch.cat([_losses_and_slope(h @ head.T, t, softcap)[0][:, 0] for h, t in chunks])
