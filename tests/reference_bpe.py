"""Byte-level BPE by the book: the slow, obvious twin that `rustbpe` is tested against.

What it is: the definition of training and encoding in the fewest lines. What it is not: fast; every
step recounts everything. The pattern runs on the `regex` module. How to run it: import it in a test.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import regex


def train(documents: list[str], vocab_size: int, pattern: str) -> list[bytes]:
    """The 256 bytes, then one token for each merge: highest count first, then the smallest pair of ids."""
    tokens = [bytes([byte]) for byte in range(256)]
    words = Counter(tuple(piece.encode()) for text in documents for piece in regex.findall(pattern, text))
    while len(tokens) < vocab_size:
        counts: Counter[tuple[int, int]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merged: Counter[tuple[int, ...]] = Counter()
        for word, count in words.items():
            merged[_join(word, best, len(tokens))] += count
        words = merged
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def _join(word: tuple[int, ...], pair: tuple[int, int], new: int) -> tuple[int, ...]:
    joined: list[int] = []
    at = 0
    while at < len(word):
        found = word[at : at + 2] == pair
        joined.append(new if found else word[at])
        at += 2 if found else 1
    return tuple(joined)


def encode(tokens: list[bytes], text: str, pattern: str) -> list[int]:
    """A piece that is a token is that token; else join the neighbours of lowest rank, leftmost first."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    ids: list[int] = []
    for piece in regex.findall(pattern, text):
        whole = piece.encode()
        parts = [whole] if whole in ranks else [bytes([byte]) for byte in whole]
        while pairs := [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
            rank, at = min(pairs)
            parts[at : at + 2] = [tokens[rank]]
        ids += [ranks[part] for part in parts]
    return ids
