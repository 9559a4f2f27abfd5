"""The running batch's memory: keys and values of a fixed number of rows, each as long as it needs.

What it is: one block a layer, reserved once and never copied to grow; on a CPU the pages of columns that no
row has reached are never touched and cost nothing. What it is not: the cache of rows that are read at once
(`kv_cache.py`), or aware of tokens (`batch.py`).

Legend: L layers, R rows, S columns, KVH key/value heads, D head dim. Run: `pytest tests/test_batch.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nanochat.config import GPTConfig


class KVSlots:
    """A row's token j is in column j of `store`, (L, R, S, 2 KVH, D): its keys, then its values."""

    def __init__(
        self, config: GPTConfig, rows: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows, self.columns, self.kv_heads = rows, columns, config.kv_heads
        shape = (config.depth, rows, columns, 2 * config.kv_heads, config.head_dim)
        self.store = _zeros(shape, dtype, device)
        # Views are made for all layers at once: on a CPU a step of a small model is as long as a few hundred.
        self._flat = self.store.flatten(1, 2).unbind()
        self._by_head = self.store.transpose(2, 3)

    def write(self, layer: int, places: slice | Tensor, kv: Tensor) -> None:
        """Store (N, 2 KVH, D) keys and values at N places, row * S + column."""
        if isinstance(places, slice):
            self._flat[layer][places] = kv
        else:
            self._flat[layer].index_copy_(0, places, kv)

    def views(self, rows: slice, columns: slice) -> list[tuple[Tensor, Tensor]]:
        """(rows, KVH, columns, D) keys and values of each layer, also those that are yet to be written."""
        keys, values = self._by_head[:, rows, :, columns].split(self.kv_heads, 2)
        return list(zip(keys.unbind(), values.unbind(), strict=True))

    def copy(self, source: int, target: int, columns: int) -> None:
        """A row's first columns, over those of another."""
        self.store[:, target, :columns] = self.store[:, source, :columns]

    def swap(self, a: int, b: int, columns: int) -> None:
        """Two rows' first columns change places."""
        self.store[:, [a, b], :columns] = self.store[:, [b, a], :columns]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Zeros, because a masked NaN in unwritten memory would still spoil a weighted sum. numpy's come from
    # the system unwritten, page by page when used; torch.zeros writes them all.
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = torch.empty((), dtype=dtype).element_size()
    return torch.from_numpy(np.zeros((*shape[:-1], shape[-1] * size), dtype=np.uint8)).view(dtype)
