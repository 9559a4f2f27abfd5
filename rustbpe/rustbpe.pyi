"""Byte-level BPE in Rust: train a vocabulary, encode, decode.

A vocabulary is a list of byte strings; a token's id is its index. Special tokens are not known here:
their strings are ordinary text. Lone surrogates in a text count as U+FFFD and surrogate pairs as the
character they stand for, as in tiktoken. Every fault of the caller is a ValueError (a wrong type a
TypeError), and all work is done with the GIL released. No global thread pool: safe to use after a fork.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

__all__ = ["GPT4_PATTERN", "PATTERNS", "Encoder", "Stream", "split", "train"]

GPT4_PATTERN: Final[str]
"""The default split pattern: GPT-4 style, numbers in groups of at most two digits."""

PATTERNS: Final[dict[str, str]]
"""The patterns by name: gpt2, gpt4 (the default), cl100k (GPT-4's own), o200k (GPT-4o's).

They, GPT4_PATTERN with {1,1} or {1,3}, and the spellings of GPT-2's first release and Llama 3 run on
hand-written splitters, which are linear in the text and cannot fail. Any other pattern runs on a regex
engine (the crate fancy-regex); one that leaves text unmatched or that exceeds the engine's backtracking
limit is a ValueError.
"""

def train(
    documents: Iterable[str],
    vocab_size: int,
    pattern: str = ...,
    *,
    max_doc_chars: int = 10_000,
    max_chars: int = 2_000_000_000,
    threads: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> list[bytes]:
    """Train a vocabulary: the 256 bytes by value, then one token for each merge, in order.

    Of each document the first `max_doc_chars` characters are read, and `max_chars` in all; then the
    iterable is left. Memory grows with the distinct words (pieces of `pattern`), not with the text.
    `threads` = 0 uses all cores. The result has at most `vocab_size` (>= 256) tokens, fewer if the
    text runs out of pairs. Ctrl-C interrupts. `progress` is called with (tokens made, `vocab_size`) every
    256 tokens.

    The pair of neighbours with the highest count is merged, of equal ones that with the smallest
    (left id, right id); overlapping occurrences count (`aaa` holds the pair `aa` twice). So the result
    is the same for any number of threads and any order of documents that `max_chars` does not cut.
    """

def split(text: str, pattern: str = ...) -> list[str]:
    """The pieces of `text` that merges never cross; joined they are `text`."""

@final
class Encoder:
    """Encodes with the ids tiktoken gives for the same ranks and pattern, in n log n on any text.

    `tokens` must be distinct, none empty, and hold all 256 single bytes, in any order.
    """

    def __new__(cls, tokens: Sequence[bytes], pattern: str = ...) -> Encoder: ...
    @property
    def n_tokens(self) -> int: ...
    def encode(self, text: str) -> list[int]:
        """The ids of `text` (less than 4 GiB of UTF-8)."""

    def encode_batch(self, texts: Sequence[str], threads: int = 0) -> list[list[int]]:
        """`encode` of each text, on `threads` threads (0: all cores) or as many as pay."""

    def encode_batch_flat(
        self, texts: Sequence[str], threads: int = 0, itemsize: int = 4
    ) -> tuple[bytearray, bytearray]:
        """As `encode_batch` without a Python int for each id: (ids, offsets), two writable buffers.

        `np.frombuffer(ids, np.uint32)` (np.uint16 with `itemsize=2`, for at most 65,536 tokens) holds all
        ids; those of text i are `[offsets[i]:offsets[i + 1]]` with `np.frombuffer(offsets, np.uint64)`.
        """

    def stream(self) -> Stream:
        """Encodes a text that arrives bit by bit."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, which need not be valid UTF-8. An unknown id is a ValueError."""

    def decode_batch(self, rows: Iterable[Iterable[int]]) -> list[bytes]:
        """`decode_bytes` of each row."""

@final
class Stream:
    """The ids of a text that arrives bit by bit: all that `push` and `finish` return, joined, are those of
    the whole text.

    What waits is the text from the last blank that follows a non-blank on. With a pattern that is not
    one of the hand-written ones all of it waits for `finish`.
    """

    def push(self, text: str) -> list[int]:
        """The ids that `text`, at the end of what came before, has made certain."""

    def finish(self) -> list[int]:
        """The ids of the rest. The stream is then as new."""
