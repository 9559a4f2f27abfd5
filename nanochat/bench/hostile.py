"""Texts on which tokenizers are known to be slow, to panic or to lose something, a megabyte each.

Each maker gives `n` characters, the same for the same `n`. What it is not: the measuring (`tokenize.py`) or
the proof that nothing is lost (tests/test_rustbpe.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice

Maker = Callable[[int], str]


def repeated(unit: str) -> Maker:
    """`unit` again and again."""
    return lambda n: (unit * (n // len(unit) + 1))[:n]


def drawn(alphabet: str) -> Maker:
    """Characters at random."""
    return lambda n: "".join(random.Random(1).choices(alphabet, k=n))


def between(left: str, inner: Maker, right: str) -> Maker:
    """`inner` with something before and after it."""
    return lambda n: left + inner(n - len(left) - len(right)) + right


def fibonacci(n: int) -> str:
    """The Fibonacci word: every cut of it repeats nearly everywhere, and no two neighbours are alike."""
    shorter, longer = "a", "ab"
    while len(longer) < n:
        shorter, longer = longer, longer + shorter
    return longer[:n]


def growing(unit: str, gap: str) -> Maker:
    """Runs of 1, 2, 3, ... units with a gap after each."""

    def make(n: int) -> str:
        runs: Iterator[str] = chain.from_iterable((unit * k, gap) for k in range(1, n))
        return "".join(islice(chain.from_iterable(runs), n))

    return make


def any_character(n: int) -> str:
    """Code points of the first three planes that have one, assigned or not."""
    rng = random.Random(2)
    return "".join(islice((chr(c) for c in iter(lambda: rng.randrange(0x30000), -1) if c >> 11 != 27), n))


def interleaved(*units: str) -> Maker:
    """One unit after the other, in turn."""
    return lambda n: "".join(islice(chain.from_iterable(cycle(units)), n))


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
CJK = "".join(map(chr, range(0x4E00, 0x5000)))
EMOJI = "👩\u200d👩\u200d👧\u200d👦🇩🇪🏳\ufe0f\u200d🌈👍🏽"

# What others were seen to fail on (experiments/peers.json has their seconds) ...
KNOWN: dict[str, Maker] = {
    "one letter": repeated("a"),
    "spaces": repeated(" "),
    "newlines": repeated("\n"),
    "tabs and spaces": drawn("\t "),
    "digits": drawn("0123456789"),
    "emoji": repeated(EMOJI),
    "latin-1 bytes": drawn("".join(map(chr, range(256)))),
    "letters without a space": drawn(LETTERS),
    "exclamation marks": repeated("!"),
    "CJK without a space": drawn(CJK),
    "ab": repeated("ab"),
    "DNA": drawn("ACGT"),
    "contractions": repeated("'s"),
}
# ... and ten more.
MORE: dict[str, Maker] = {
    "spaces inside": between("x", repeated(" "), "y"),
    "CRLF": repeated("\r\n"),
    "ideographic spaces": repeated("\u3000"),
    "combining marks": between("e", repeated("\u0301"), ""),
    "long s contractions": repeated("'\u017f"),
    "alternating case": repeated("aB"),
    "Fibonacci word": fibonacci,
    "growing runs": growing("ab", " "),
    "any character": any_character,
    "NUL and letters": interleaved("\0", "a"),
    "URL escapes": drawn("%0123456789ABCDEF"),
    "blank lines with indents": repeated("    \n\t\n"),
}
HOSTILE = {**KNOWN, **MORE}
