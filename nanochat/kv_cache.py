"""The key/value cache of a batch of rows that have different lengths.

What it is: the model's memory between calls, and what follows from it: positions, attention masks, room.
One call of the model is `expect` (if rows are right-padded), the forward pass, `advance`. What it is not:
paged (each layer is one contiguous block) or aware of tokens (`engine.py`).

Legend: L layers, B rows, T new tokens, S stored tokens, C width, KVH key/value heads, D head dim.
Run: `pytest tests/test_engine.py -k cache`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.config import GPTConfig

GROWTH_TOKENS = 256  # a cache grows by this much: one copy now and then, little unused memory


def right_pad(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(B, longest) ids; padding is id 0, which nothing attends to."""
    T = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (T - len(row))] for row in rows], device=device)


class KVCache:
    """Keys and values of all layers, (L, B, KVH, S, D) each, for rows of different lengths.

    One call of the model: `expect` (if rows are padded), the forward pass, `advance`. Row i's token j is
    stored at column j whatever the other rows hold; columns behind a row's end are masked, then reused.
    """

    def __init__(
        self,
        config: GPTConfig,
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str,
        *,
        reach: int | None = None,
    ) -> None:
        """`reach`: tokens that a row may have, if more than the context; as told to `GPT.reach`."""
        self.context = max(config.context, reach or 0)
        if capacity > self.context:
            raise ValueError(f"capacity {capacity} is beyond the model's context of {self.context} tokens")
        self.lengths = [0] * rows
        self.previous: Tensor | None = None  # (B, 1, C): the last token's embedding, kept for the model
        # Zeros, because a masked NaN in unwritten memory would still spoil a weighted sum.
        shape = (config.depth, rows, config.kv_heads, capacity, config.head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._counts: list[int] | None = None
        self._new_columns: Tensor | None = None  # of the call under way, as are the masks
        self._masks: dict[tuple[int, int], Tensor | None] = {}

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def expect(self, counts: Sequence[int]) -> None:
        """In the coming call row i has `counts[i]` real tokens; the columns behind them are padding."""
        self._counts = list(counts)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, KVH, T, D) new keys and values; returns all stored ones, (B, KVH, S, D)."""
        T = k.size(2)
        end = self.longest + T
        if layer == 0:
            self._reserve(T)
        keys, values = self._keys[layer, : self.rows], self._values[layer, : self.rows]
        if min(self.lengths) == self.longest:
            keys[:, :, end - T : end] = k
            values[:, :, end - T : end] = v
        else:
            rows = torch.arange(self.rows, device=k.device)[:, None]
            columns = self._columns(T)  # (B, T)
            keys[rows, :, columns] = k.transpose(1, 2)
            values[rows, :, columns] = v.transpose(1, 2)
        return keys[:, :, :end], values[:, :, :end]

    def positions(self, T: int) -> Tensor:
        """(B, T) position of each new token in its row; those of padding are only kept legal."""
        return self._columns(T).clamp(max=self.context - 1)

    def mask(self, T: int, window: int) -> Tensor | None:
        """(B or 1, 1, T, S), True = may attend; None if the cache is empty: that is plain attention."""
        if (T, window) not in self._masks:
            self._masks[T, window] = self._make_mask(T, window)
        return self._masks[T, window]

    def gather_last(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, 1, C): each row's last real token of this call."""
        if self._counts is None:
            return x[:, -1:]
        last = torch.tensor(self._counts, device=x.device) - 1
        return x[torch.arange(x.size(0), device=x.device), last][:, None]

    def advance(self, counts: Sequence[int] | Tensor) -> None:
        """The forward pass is over: row i has become `counts[i]` tokens longer."""
        self.lengths = [length + int(count) for length, count in zip(self.lengths, counts, strict=True)]
        self._forget_call()

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be left out, moved or repeated."""
        used = self.longest
        if len(rows) > self._keys.size(1):
            self._keys, self._values = self._keys[:, rows], self._values[:, rows]
        elif moved := [i for i, row in enumerate(rows) if i != row]:
            source = [rows[i] for i in moved]
            for store in (self._keys, self._values):
                store[:, moved, :, :used] = store[:, source, :, :used]
        if self.previous is not None:
            self.previous = self.previous[list(rows)]
        self.lengths = [self.lengths[row] for row in rows]
        self._forget_call()

    def _columns(self, T: int) -> Tensor:
        """(B, T) where the new tokens of each row are stored."""
        if self._new_columns is None or self._new_columns.size(1) != T:
            starts = torch.tensor(self.lengths, device=self._keys.device)
            self._new_columns = starts[:, None] + torch.arange(T, device=starts.device)
        return self._new_columns

    def _forget_call(self) -> None:
        self._counts = self._new_columns = None
        self._masks.clear()

    def _make_mask(self, T: int, window: int) -> Tensor | None:
        if self.longest == 0:
            return None
        columns = self._columns(T)  # (B, T)
        if min(self.lengths) == self.longest:
            columns = columns[:1]
        stored = torch.arange(self.longest + T, device=columns.device)
        distance = columns[:, :, None] - stored  # (B, T, S)
        return ((distance >= 0) & (distance < window))[:, None]

    def _reserve(self, T: int) -> None:
        """Make room for T more columns. Padding may reach beyond the context, real tokens may not."""
        needed = max(n + c for n, c in zip(self.lengths, self._counts or [T] * self.rows, strict=True))
        if needed > self.context:
            raise ValueError(f"{needed} tokens do not fit the model's context of {self.context}")
        columns = self.longest + T
        if columns > self._keys.size(3):
            extra = max(columns, min(self.context, columns + GROWTH_TOKENS)) - self._keys.size(3)
            self._keys = F.pad(self._keys, (0, 0, 0, extra))
            self._values = F.pad(self._values, (0, 0, 0, extra))
