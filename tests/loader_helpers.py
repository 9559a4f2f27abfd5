"""What the tests of the data path share: countable documents, a byte tokenizer, short ways to say things."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np

from nanochat.dataloader import Batch, Window, batches
from nanochat.packing import Piece
from nanochat.tokenizer import Tokenizer, split_pattern

BYTES = Tokenizer([bytes([i]) for i in range(256)], split_pattern())


class Numbered:
    """Documents of globally unique tokens (BOS = 0), so that each target can be told from all others."""

    bos_id = 0

    def __init__(self, lengths: list[list[int]], seed: int = 7) -> None:
        self.lengths, self.seed = lengths, seed
        self.fingerprint = f"{lengths}{seed}"
        self.made: list[tuple[int, int]] = []

    def len_windows(self, epoch: int) -> int:
        return len(self.lengths)

    def documents(self, window: int) -> list[np.ndarray]:
        start = 1 + sum(map(sum, self.lengths[:window]))
        firsts = np.cumsum([start, *self.lengths[window]])
        return [np.array([0, *range(a, b)], np.int32) for a, b in itertools.pairwise(firsts)]

    def window(self, epoch: int, index: int) -> Window:
        self.made.append((epoch, index))
        return Window([Piece(ids) for ids in self.documents(index)])


def random_lengths(rng: random.Random, windows: int, most: int) -> list[list[int]]:
    return [[rng.randrange(most) for _ in range(rng.randrange(1, 12))] for _ in range(windows)]


def take(source: Any, n: int | None = None, **options: Any) -> list[Batch]:
    stream = batches(source, **{"rows": 2, "context": 8, **options})
    found = [b for _, b in zip(range(10**9 if n is None else n), stream, strict=False)]
    stream.close()  # type: ignore[attr-defined]
    return found


def chat(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]}
