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
    """Keys and values, (L, R, S, KVH, D) each; a row's token j is in column j."""

    def __init__(
        self, config: GPTConfig, rows: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows, self.columns = rows, columns
        shape = (config.depth, rows, columns, config.kv_heads, config.head_dim)
        self.keys, self.values = (_zeros(shape, dtype, device) for _ in range(2))
        # Views are made for all layers at once: on a CPU a step of a small model is as long as a few hundred.
        self._flat = [(k.flatten(0, 1), v.flatten(0, 1)) for k, v in zip(self.keys, self.values, strict=True)]
        self._by_head = self.keys.transpose(2, 3), self.values.transpose(2, 3)

    def write(self, layer: int, places: slice | Tensor, k: Tensor, v: Tensor) -> None:
        """Store (N, KVH, D) keys and values at N places, row * S + column."""
        keys, values = self._flat[layer]
        if isinstance(places, slice):
            keys[places], values[places] = k, v
        else:
            keys.index_copy_(0, places, k)
            values.index_copy_(0, places, v)

    def views(self, rows: slice, columns: slice) -> list[tuple[Tensor, Tensor]]:
        """(rows, KVH, columns, D) keys and values of each layer, also those that are yet to be written."""
        keys, values = (all_[:, rows, :, columns].unbind() for all_ in self._by_head)
        return list(zip(keys, values, strict=True))

    def copy(self, source: int, target: int, columns: int) -> None:
        """A row's first columns, over those of another."""
        for store in (self.keys, self.values):
            store[:, target, :columns] = store[:, source, :columns]

    def swap(self, a: int, b: int, columns: int) -> None:
        """Two rows' first columns change places."""
        for store in (self.keys, self.values):
            store[:, [a, b], :columns] = store[:, [b, a], :columns]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Zeros, because a masked NaN in unwritten memory would still spoil a weighted sum. numpy's come from
    # the system unwritten, page by page when used; torch.zeros writes them all.
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = torch.empty((), dtype=dtype).element_size()
    return torch.from_numpy(np.zeros((*shape[:-1], shape[-1] * size), dtype=np.uint8)).view(dtype)
