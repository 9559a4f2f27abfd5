"""The best-fit-crop packer of nanochat's 2026 loader, as a source: kept only to be compared with.

Each row starts with a BOS; of a buffer of 1,000 documents the largest one that still fits is taken, and when
none fits, the shortest is cropped to fill the row and its rest is thrown away. No padding, but on real text
a third to a half of the tokens is never trained on. One window is a whole epoch, so it is for small data.
How to use it: `batches(CropSource(shards, tokenizer, seed, context), context=context, ...)`. To train on it
as `scripts.base_train` would: `PYTHONPATH=. python tests/crop_loader.py --context 512 ...` (its flags).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from nanochat import stages
from nanochat.common import run_main
from nanochat.dataset import Shard
from nanochat.packing import Piece
from nanochat.sources import DocumentSource, Window, digest
from nanochat.tokenizer import Tokenizer
from scripts import base_train


class CropSource:
    """The documents of `DocumentSource`, in its order, cropped to rows of `context` + 1 tokens."""

    def __init__(
        self,
        shards: Sequence[Shard],
        tokenizer: Tokenizer,
        seed: int,
        context: int,
        buffer_documents: int = 1000,
    ) -> None:
        self._documents = DocumentSource(shards, tokenizer, seed)
        self.bos_id, self.seed = tokenizer.bos_id, seed
        self.fingerprint = digest("crop", self._documents.fingerprint, context, buffer_documents)
        self._capacity, self._buffer_documents = context + 1, buffer_documents

    def len_windows(self, epoch: int) -> int:
        return 1

    def window(self, epoch: int, index: int) -> Window:
        rows, cropped = crop_rows(self._stream(epoch), self._capacity, self._buffer_documents)
        return Window([Piece(row) for row in rows], cropped=cropped)

    def _stream(self, epoch: int) -> Iterator[np.ndarray]:
        for index in range(self._documents.len_windows(epoch)):
            yield from (piece.ids for piece in self._documents.window(epoch, index).pieces)


def crop_rows(
    documents: Iterable[np.ndarray], capacity: int, buffer_documents: int
) -> tuple[list[np.ndarray], int]:
    """Rows of `capacity` tokens (the last one may be shorter) and the number of tokens thrown away."""
    stream = enumerate(documents)
    buffer: list[tuple[int, int]] = []  # (length, number), by length
    texts: dict[int, np.ndarray] = {}
    rows, row, used, cropped = [], [], 0, 0
    while True:
        while len(buffer) < buffer_documents and (entry := next(stream, None)) is not None:
            number, ids = entry
            texts[number] = ids
            insort(buffer, (len(ids), number))
        if not buffer:
            break
        fitting = bisect_right(buffer, (capacity - used, len(texts) + 10**9)) - 1
        length, number = buffer.pop(max(fitting, 0))
        taken = texts.pop(number)[: capacity - used]
        cropped += length - len(taken)
        row.append(taken)
        used += len(taken)
        if used == capacity:
            rows.append(np.concatenate(row))
            row, used = [], 0
    return ([*rows, np.concatenate(row)] if row else rows), cropped


def main(argv: list[str]) -> int:
    """Pretraining on cropped rows; validation is on whole documents, as always."""
    context = int(argv[argv.index("--context") + 1])

    def source(shards: Sequence[Shard], tokenizer: Tokenizer, seed: int) -> CropSource | DocumentSource:
        stages.DocumentSource = DocumentSource  # type: ignore[misc]  # the first one asked for trains
        return CropSource(shards, tokenizer, seed, context)

    stages.DocumentSource = source  # type: ignore[misc,assignment]
    return base_train.main(argv)


if __name__ == "__main__":
    run_main(main)
