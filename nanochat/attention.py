"""Causal attention, whole or in a sliding window, with or without a cache: one function.

What it is: the choice of kernel. Whole context: torch's fused SDPA. Window, no cache: FlexAttention
on a GPU (skips the masked blocks), a block-local SDPA elsewhere, which computes 2*window scores a
query instead of building a (T, T) mask (an explicit mask made SDPA 28 % slower on A100 in nanochat's
PR 540). With a cache: SDPA under the cache's own mask. What it is not: projections, rotary tables or
norms (`gpt.py`), or the cache (`engine.py`).

Legend: B batch, H query heads, KVH key/value heads, T time, S stored keys, D head dim, W window.
Run: `pytest tests/test_gpt.py -k attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, window: int, mask: Tensor | None = None) -> Tensor:
    """(B, H, T, D) queries over (B, KVH, S, D) keys and values -> (B, H, T, D).

    `window` counts the positions a query sees, itself included. `mask` (B, 1, T, S), True = may
    attend, replaces causality and window where a cache knows better; without it S must equal T.
    """
    grouped = k.size(1) != q.size(1)
    if mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
    assert k.size(2) == q.size(2), "causal attention without a mask needs as many keys as queries"
    if window >= q.size(2):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    if q.is_cuda:
        return _flex_window(q, k, v, window)
    return _block_window(q, k, v, window)


def _block_window(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Windowed attention in blocks of W queries, each over its own and the previous block of keys."""
    B, H, T, D = q.shape
    blocks = -(-T // window)
    pad = blocks * window - T
    k, v = (x.repeat_interleave(H // x.size(1), dim=1) for x in (k, v))
    q, k, v = (F.pad(x, (0, 0, 0, pad)).view(B, H, blocks, window, D) for x in (q, k, v))
    k, v = (
        torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x), dim=3) for x in (k, v)
    )  # (B, H, n, 2W, D)
    row = torch.arange(window, device=q.device)[:, None]
    distance = row + window - torch.arange(2 * window, device=q.device)[None]  # query minus key position
    mask = ((distance >= 0) & (distance < window)).expand(blocks, window, 2 * window).clone()
    mask[0, :, :window] = False  # the block before the first does not exist
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return y.reshape(B, H, blocks * window, D)[:, :, :T]


def _flex_window(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def near(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    T = q.size(2)
    block_mask = create_block_mask(near, None, None, T, T, device=str(q.device))
    return flex_attention(q, k, v, block_mask=block_mask, enable_gqa=k.size(1) != q.size(1))
