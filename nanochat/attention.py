"""Causal attention, whole or in a sliding window, with or without a cache: one function.

What it is: the choice of kernel. On a GPU: torch's fused SDPA for the whole context, FlexAttention for
a window (it skips the masked blocks; an explicit mask made SDPA 28 % slower on A100 in nanochat's PR
540), or SDPA with that mask where nothing is compiled. On a CPU, training and windows: plain products in
blocks of queries over the keys they see, which the compiler fuses with the softmax (torch's CPU flash
kernel took 2.7 times as long in bfloat16, 1.6 times in float32; experiments/LOG.md). With a cache that
holds something: SDPA under the cache's own mask. What it is not: projections, rotary tables or norms
(`gpt.py`), or the cache (`kv_cache.py`).

Legend: B batch, H query heads, KVH key/value heads, T time, S stored keys, D head dim, W window.
Run: `pytest tests/test_gpt.py -k attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # queries of a block: smaller ones save more masked products, larger ones multiply faster
MAX_BLOCKS = 16  # the compiler sees each of them
LONGEST = 4096  # beyond, the weights kept for the backward pass take more memory than the time is worth


def attend(q: Tensor, k: Tensor, v: Tensor, window: int, mask: Tensor | None = None) -> Tensor:
    """(B, H, T, D) queries over (B, KVH, S, D) keys and values -> (B, H, T, D).

    `window` counts the positions a query sees, itself included. `mask` (B, 1, T, S), True = may
    attend, replaces causality and window where a cache knows better; without it S must equal T.
    """
    grouped = k.size(1) != q.size(1)
    if mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    assert k.size(2) == q.size(2), "causal attention without a mask needs as many keys as queries"
    is_windowed = window < q.size(2)
    if q.is_cuda and is_windowed:
        return _flex_window(q, k, v, window) if torch.compiler.is_compiling() else _masked(q, k, v, window)
    if q.device.type == "cpu" and (is_windowed or (q.requires_grad and BLOCK < q.size(2) <= LONGEST)):
        return _in_blocks(q, k, v, window)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def _in_blocks(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Each block of queries over the keys between its first query's window and its own end."""
    T, D = q.shape[2:]
    block = max(BLOCK, -(-T // MAX_BLOCKS))
    k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    position = torch.arange(T, device=q.device)
    out = []
    for start in range(0, T, block):
        end, first = min(start + block, T), max(0, start - window + 1)
        distance = position[start:end, None] - position[first:end]
        scores = (q[:, :, start:end] @ k[:, :, first:end].mT).float() * D**-0.5
        hidden = (distance < 0) | (distance >= window)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out.append(weights.to(v.dtype) @ v[:, :, first:end])
    return torch.cat(out, dim=2)


def _masked(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """What FlexAttention does, for a model that is not compiled: there, it would store all scores."""
    position = torch.arange(q.size(2), device=q.device)
    distance = position[:, None] - position
    mask = (distance >= 0) & (distance < window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=k.size(1) != q.size(1))


def _flex_window(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def near(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    T = q.size(2)
    block_mask = create_block_mask(near, None, None, T, T, device=str(q.device))
    return flex_attention(q, k, v, block_mask=block_mask, enable_gqa=k.size(1) != q.size(1))
