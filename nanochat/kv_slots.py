"""The running batch's memory: keys and values of a fixed number of rows, each as long as it needs.

What it is: one block a layer, reserved once and never copied to grow; on a CPU the pages of columns that no
row has reached are never touched and cost nothing. What it is not: the cache of rows that are read at once
(`kv_cache.py`), or aware of tokens (`batch.py`).

Legend: L layers, R rows, S columns, KVH key/value heads, D head dim. Run: `pytest tests/test_batch.py`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.decoder_ops import in_parts


class KVSlots:
    """A row's token j is in column j of `store`, (L, R, 2 KVH, S, D): heads of keys, then of values."""

    def __init__(
        self, config: GPTConfig, rows: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows, self.columns, self.kv_heads = rows, columns, config.kv_heads
        shape = (config.depth, rows, 2 * config.kv_heads, columns, config.head_dim)
        self.store = _zeros(shape, dtype, device)
        # Views are made for all layers at once: on a CPU a step of a small model is as long as a few hundred.
        self._flat = self.store.flatten(1, 3).unbind()
        self._heads = torch.arange(2 * config.kv_heads, device=device) * columns

    def writer(self, rows: Sequence[int], columns: Sequence[int]) -> Callable[[int, Tensor], None]:
        """What stores a layer's (N, 2 KVH, D) keys and values of these tokens, a row's side by side."""
        if rows[0] == rows[-1]:
            own = self.store.select(1, rows[0]).narrow(2, columns[0], len(columns)).transpose(1, 2).unbind()
            return lambda layer, kv: own[layer].copy_(kv)
        heads = len(self._heads)
        starts = [r * heads * self.columns + c for r, c in zip(rows, columns, strict=True)]
        places = torch.tensor(starts, device=self._heads.device)[:, None] + self._heads

        def write(layer: int, kv: Tensor) -> None:
            for part, to in in_parts(kv, places):
                self._flat[layer].index_copy_(0, to.flatten(), part.reshape(-1, part.size(2)))

        return write

    def views(self, rows: slice, columns: slice) -> list[tuple[Tensor, Tensor]]:
        """(rows, KVH, columns, D) keys and values of each layer, also those that are yet to be written."""
        seen, heads = self.store[:, rows, :, columns], self.kv_heads
        keys, values = seen.narrow(2, 0, heads), seen.narrow(2, heads, heads)
        return list(zip(keys.unbind(), values.unbind(), strict=True))

    def copy(self, source: int, target: int, columns: int) -> None:
        """A row's first columns, over those of another."""
        self.store[:, target, :, :columns] = self.store[:, source, :, :columns]

    def swap(self, a: int, b: int, columns: int) -> None:
        """Two rows' first columns change places."""
        self.store[:, [a, b], :, :columns] = self.store[:, [b, a], :, :columns]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Zeros, because a masked NaN in unwritten memory would still spoil a weighted sum. These come from the
    # system page by page when used; torch.zeros writes them all. Small pages: of huge ones a row's first
    # token would take one for each of its heads, and they may be 8 times as slow to come.
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = torch.empty((), dtype=dtype).element_size()
    pages = mmap.mmap(-1, math.prod(shape) * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
