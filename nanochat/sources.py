"""Where training tokens come from: documents of a data folder, or a sequence of conversations (no torch).

A source gives *windows*: bounded parts of the data, each a pure function of (seed, epoch, window). What it
is not: cutting, packing or sharing out (`packing.py`, `dataloader.py`). How to look at it:
`tests/test_dataloader.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from nanochat.common import print0
from nanochat.dataset import Shard, read_row_group
from nanochat.packing import Piece, seeded_rng
from nanochat.tokenizer import Tokenizer

WINDOW_ITEMS = 1024


class Window(NamedTuple):
    """A part of the data, uncut, and what it took to get it."""

    pieces: list[Piece]
    truncated: int = 0  # conversations that lost turns
    cropped: int = 0  # tokens lost in that way
    refused: int = 0  # conversations that cannot be trained on


class Source(Protocol):
    """Windows of pieces, each a pure function of (seed, epoch, window)."""

    bos_id: int
    seed: int
    fingerprint: str  # of data, tokenizer and seed: a position means something only with the same ones

    def len_windows(self, epoch: int) -> int: ...
    def window(self, epoch: int, index: int) -> Window: ...


class DocumentSource:
    """Documents of some shards, their windows in another order each epoch.

    A window is one row group, or neighbouring ones that together have at most 1,024 documents: what a window
    pads is about the square root of its documents, in half rows, so small ones would pad more.
    """

    def __init__(self, shards: Sequence[Shard], tokenizer: Tokenizer, seed: int) -> None:
        if not shards:
            raise ValueError("no shards to read; see `nanochat.dataset.split_shards`")
        self.bos_id, self.seed = tokenizer.bos_id, seed
        contents = [shard.sha256 for shard in shards]
        self.fingerprint = digest("documents", contents, tokenizer.hash, seed)
        self._tokenizer = tokenizer
        self._windows = [window for shard in shards for window in _row_group_windows(shard)]

    def len_windows(self, epoch: int) -> int:
        return len(self._windows)

    def window(self, epoch: int, index: int) -> Window:
        place = seeded_rng(self.seed, epoch).permutation(len(self._windows))[index]
        path, groups = self._windows[place]
        texts = [text for group in groups for text in read_row_group(path, group)]
        ids, offsets = self._tokenizer.encode_flat(texts)
        return Window([_document(self.bos_id, document) for document in np.split(ids, offsets[1:-1])])


def _row_group_windows(shard: Shard) -> list[tuple[Path, list[int]]]:
    windows: list[tuple[Path, list[int]]] = []
    room = 0
    for group, documents in enumerate(shard.row_groups):
        if documents > room or not windows:
            windows.append((shard.path, []))
            room = WINDOW_ITEMS
        windows[-1][1].append(group)
        room -= documents
    return windows


def _document(bos_id: int, ids: np.ndarray) -> Piece:
    tokens = np.empty(len(ids) + 1, dtype=np.int32)
    tokens[0], tokens[1:] = bos_id, ids
    return Piece(tokens)


class ItemSource:
    """Conversations (`{"messages": ...}`) and texts (`{"text": ...}`), in another order each epoch.

    `supervise="assistant"` counts only what the assistant has to produce, "all" counts every token; texts
    always count in full. Conversations longer than `max_tokens` (context + 1; without it they are cut like
    documents) are truncated at a turn; those that cannot be rendered are refused and counted, the first of
    them is printed with its reason.
    """

    def __init__(
        self,
        items: Sequence[dict[str, Any]],
        tokenizer: Tokenizer,
        seed: int,
        supervise: Literal["assistant", "all"] = "assistant",
        max_tokens: int | None = None,
    ) -> None:
        if not len(items):
            raise ValueError("the mixture is empty; name at least one file or task with rows in it")
        if supervise not in ("assistant", "all"):
            raise ValueError(f"supervise {supervise!r}: choose 'assistant' or 'all'")
        self.bos_id, self.seed = tokenizer.bos_id, seed
        # Reading a large mixture only to hash it would cost minutes: its size and 16 items stand for it.
        sample = [items[i * len(items) // 16] for i in range(16)]
        facts = (len(items), sample, tokenizer.hash, seed, supervise, max_tokens)
        self.fingerprint = digest("items", *facts)
        self._items, self._tokenizer = items, tokenizer
        self._supervise, self._max_tokens = supervise, max_tokens
        self._has_told = False

    def len_windows(self, epoch: int) -> int:
        return -(-len(self._items) // WINDOW_ITEMS)

    def window(self, epoch: int, index: int) -> Window:
        order = seeded_rng(self.seed, epoch).permutation(len(self._items))
        pieces, truncated, cropped, refused = [], 0, 0, 0
        for place in order[index * WINDOW_ITEMS : (index + 1) * WINDOW_ITEMS].tolist():
            try:
                piece, lost = self._piece(place)
            except ValueError as error:
                refused += 1
                self._tell(f"item {place} is refused: {error} (further ones are only counted)")
                continue
            pieces.append(piece)
            truncated += lost > 0
            cropped += lost
        return Window(pieces, truncated, cropped, refused)

    def _piece(self, place: int) -> tuple[Piece, int]:
        """The item's tokens and how many were truncated."""
        item = self._items[place]
        if item.get("messages") is not None:
            ids, mask = self._tokenizer.render_conversation(item)
            whole = len(ids)
            if self._max_tokens is not None and whole > self._max_tokens:
                ids, mask = self._tokenizer.render_conversation(item, self._max_tokens)
            counted = np.array(mask, dtype=bool) if self._supervise == "assistant" else None
            return Piece(np.array(ids, dtype=np.int32), counted), whole - len(ids)
        if isinstance(item.get("text"), str):
            return _document(self.bos_id, self._tokenizer.encode_flat([item["text"]])[0]), 0
        raise ValueError(f"it has neither 'messages' nor a 'text'; its keys: {', '.join(map(str, item))}")

    def _tell(self, message: str) -> None:
        if not self._has_told:
            print0(message)
        self._has_told = True


def digest(*facts: object) -> str:
    """sha256 of some facts; other facts, another digest."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
