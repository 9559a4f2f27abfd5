"""Text to ids of byte tokens by rustbpe or, where it is not built, by tiktoken: the same ids (no torch).

What it is not: a tokenizer; special tokens, conversations and files are `tokenizer.py`. How to make one:
`encoder_of(tokens, pattern)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import tiktoken

THREADED_CHARS = 1 << 16
MAX_UINT16 = 1 << 16


class Stream(Protocol):
    """A text that arrives bit by bit: the ids of all calls, joined, are those of the whole text."""

    def push(self, text: str) -> list[int]: ...
    def finish(self) -> list[int]: ...


class TextEncoder(Protocol):
    """Encodes texts; ids are indices into the tokens it was made of."""

    def encode(self, texts: list[str]) -> list[list[int]]: ...
    def encode_flat(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]: ...
    def stream(self) -> Stream: ...


def encoder_of(tokens: list[bytes], pattern: str) -> TextEncoder:
    """rustbpe's if it is built, else tiktoken's; a test holds their ids equal."""
    rustbpe = import_rustbpe()
    return TiktokenEncoder(tokens, pattern) if rustbpe is None else RustEncoder(rustbpe, tokens, pattern)


def import_rustbpe() -> ModuleType | None:
    """The module, or None if it is not built."""
    try:
        import rustbpe
    except ImportError:
        return None
    return rustbpe if hasattr(rustbpe, "Encoder") else None  # the source folder of that name is no build


class RustEncoder:
    """rustbpe: any text in linear time, several threads."""

    def __init__(self, rustbpe: ModuleType, tokens: list[bytes], pattern: str) -> None:
        self._encoder = rustbpe.Encoder(tokens, pattern)
        self._dtype: Any = np.uint16 if len(tokens) <= MAX_UINT16 else np.uint32

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text."""
        return self._encoder.encode_batch(texts, threads=_threads(texts))

    def encode_flat(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids, offsets): those of text i are `ids[offsets[i]:offsets[i + 1]]`, uint16 if that holds them."""
        itemsize = np.dtype(self._dtype).itemsize
        ids, offsets = self._encoder.encode_batch_flat(texts, threads=_threads(texts), itemsize=itemsize)
        return np.frombuffer(ids, self._dtype), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def stream(self) -> Stream:
        """A new text that arrives bit by bit."""
        return self._encoder.stream()


class TiktokenEncoder:
    """The twin: one thread, and a text of about a million blanks in a row is beyond it."""

    def __init__(self, tokens: list[bytes], pattern: str) -> None:
        ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding(
            "nanochat", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text."""
        # One by one: tiktoken's batch call costs a Python future a document (at 100 bytes 5 times the time).
        return [_guard_panic(self._encoding, text) for text in texts]

    def encode_flat(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids, offsets): those of text i are `ids[offsets[i]:offsets[i + 1]]`."""
        rows = self.encode(texts)
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return np.array([i for row in rows for i in row], dtype=np.uint32), offsets

    def stream(self) -> Stream:
        """A new text that arrives bit by bit; all of it waits for the end."""
        return _WholeText(self)


class _WholeText:
    def __init__(self, encoder: TiktokenEncoder) -> None:
        self._encoder = encoder
        self._parts: list[str] = []

    def push(self, text: str) -> list[int]:
        self._parts.append(text)
        return []

    def finish(self) -> list[int]:
        text, self._parts = "".join(self._parts), []
        return self._encoder.encode([text])[0]


def _threads(texts: Sequence[str]) -> int:
    # Threads for much text only: to ask the system how many cores there are takes longer than a short text.
    return 0 if sum(map(len, texts)) > THREADED_CHARS else 1


def _guard_panic(encoding: tiktoken.Encoding, text: str) -> list[int]:
    try:
        return encoding.encode_ordinary(text)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3's, which is no Exception
            raise
        raise ValueError(
            f"tiktoken gave up on a text of {len(text):,} characters (about a million blanks in a row); "
            "build rustbpe, which takes any text: run env/setup.sh"
        ) from None
