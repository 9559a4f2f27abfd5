"""Pieces of tokens to rows of a fixed length: cut what is too long, pack what remains (pure, no torch).

A *piece* is a run of tokens to train on. A row has `context` inputs and as many targets, so it holds
`context` + 1 tokens. A document goes on in further rows without a second BOS, and only what remains of each
is packed, best-fit: nothing is cropped and little is padded. What it is not: reading, tokenising or ordering
data over windows and ranks (`dataloader.py`). How to look at it: `tests/test_dataloader.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

IGNORED = -1  # a target that does not count in the loss


class Piece(NamedTuple):
    """Consecutive tokens. `mask[i]` says whether token i is a target; None means that each one is.

    For the first token it matters only behind another piece in a row: a BOS there ends the document before.
    """

    ids: np.ndarray  # (n,) int32
    mask: np.ndarray | None = None  # (n,) bool


class Rows(NamedTuple):
    inputs: np.ndarray  # (R, T) int32
    targets: np.ndarray  # (R, T) int32
    padding: np.ndarray  # (R,) padded positions of `inputs`


def cut(ids: np.ndarray, mask: np.ndarray | None, context: int) -> list[Piece]:
    """Pieces of `context` + 1 tokens that overlap by one, and what remains: each target exactly once.

    The first token of a later piece is the last of the one before, so there it is context only.
    """
    pieces = []
    for start in range(0, len(ids) - 1, context):
        end = start + context + 1
        part = None if mask is None else mask[start:end]
        if start:
            part = np.ones(len(ids[start:end]), dtype=bool) if part is None else part.copy()
            part[0] = False
        pieces.append(Piece(ids[start:end], part))
    return pieces


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit-decreasing bin packing: indices of `lengths` for each bin. O(n log n) comparisons."""
    bins: list[list[int]] = []
    free: list[int] = []  # room of the bins that still have some, ascending ...
    open_bins: list[list[int]] = []  # ... and the bins themselves, in the same order
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect_left(free, lengths[index])
        if at < len(free):
            left, chosen = free.pop(at) - lengths[index], open_bins.pop(at)
        else:
            left, chosen = capacity - lengths[index], []
            bins.append(chosen)
        chosen.append(index)
        if left > 1:  # no piece is shorter than two tokens
            at = bisect_left(free, left)
            free.insert(at, left)
            open_bins.insert(at, chosen)
    return bins


def pack(pieces: Sequence[Piece], context: int, bos_id: int, rng: np.random.RandomState) -> Rows:
    """Rows of `context` + 1 tokens, in an order drawn by `rng`; what stays free is BOS and does not count.

    The order within a row is drawn, too: best-fit would put the short pieces always behind long ones.
    """
    bins = best_fit([len(piece.ids) for piece in pieces], context + 1)
    tokens = np.full((len(bins), context + 1), bos_id, dtype=np.int32)
    counted = np.zeros((len(bins), context + 1), dtype=bool)
    used = np.zeros(len(bins), dtype=np.int64)
    for row, place in enumerate(rng.permutation(len(bins))):
        chosen, start = bins[place], 0
        rng.shuffle(chosen)
        for index in chosen:
            ids, mask = pieces[index]
            end = start + len(ids)
            tokens[row, start:end] = ids
            counted[row, start:end] = True if mask is None else mask
            start = end
        used[row] = start
    targets = np.where(counted[:, 1:], tokens[:, 1:], IGNORED)
    return Rows(np.ascontiguousarray(tokens[:, :-1]), targets, np.maximum(context - used, 0))


def seeded_rng(*key: int) -> np.random.RandomState:
    # The legacy generator, because its stream is frozen over all numpy versions (NEP 19): a resume may not
    # see other data after an upgrade.
    return np.random.RandomState([k & 0xFFFFFFFF for k in key])
