"""Spelling: write a word letter by letter, and count a letter in it, by hand and then by the calculator.

Items are made from a list of words (`words_alpha.txt` below the base folder), each a pure function of its
split and index. Every twentieth word, by its hash, is for the test split only. What it is not: a data set of
the hub, or part of ChatCORE as published (ChatCORE-6 has it).
Run: `python -m scripts.chat_eval --tasks spellingbee`.
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path

from nanochat.common import UsageError
from nanochat.ledger import FETCH
from tasks.common import Item, Kind, Task, digest
from tasks.gsm8k import is_right
from tasks.rows import content_hash

TEST_ITEMS = 256
HELD_OUT = 20  # one word in so many
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
COUNT_ASKS = (
    "How many times does the letter {c} occur in {w}?", "How many {c} are there in the word {w}?",
    "Count the letter {c} in {w}.", "how often is {c} in {w}", "What is the number of {c}s in {w}?",
    "In the word {w}, how many letters are {c}?", "Tell me how many {c} the word {w} has.",
    "how many {c} in {w}?", "Does {w} have the letter {c}, and how many times?", "{w}: number of {c}?",
)  # fmt: skip
SPELL_ASKS = (
    "Spell {w}.", "How do you spell {w}?", "Spell the word {w} letter by letter.", "spell: {w}",
    "Which letters make up {w}, in order?", "Can you spell out {w} for me?",
)  # fmt: skip
QUOTES = ("{}", '"{}"', "'{}'")


def read_words(root: Path) -> tuple[list[str], str]:
    """The words of lower-case letters, and a hash of the file. UsageError if it is not there or has none."""
    path = root / "words_alpha.txt"
    if not path.is_file():
        raise UsageError(f"no list of words at {path}; fetch it: {FETCH}")
    words = path.read_text(encoding="utf-8", errors="replace").split()
    words = [word for word in words if word.isascii() and word.isalpha() and word.islower()]
    if not words:
        raise UsageError(f"{path} has no word of lower-case letters; fetch it again: {FETCH}")
    return words, content_hash(root, path)


class _Words(Task):
    """Items about words; `index` seeds everything that is drawn for an item."""

    def __init__(self, name: str, root: Path, split: str, size: int) -> None:
        words, fingerprint = read_words(root)
        self.split = split
        self.words = [w for w in words if (zlib.crc32(w.encode()) % HELD_OUT == 0) == (split == "test")]
        if not self.words:
            raise UsageError(f"the list of words is too short: none of its {len(words)} is for {split!r}")
        super().__init__(name, size, digest(name, split, fingerprint))

    def draw(self, index: int) -> tuple[random.Random, str]:
        """The item's own stream of random numbers, and its word."""
        rng = random.Random(f"{self.name} {self.split} {index}")
        return rng, rng.choice(self.words)


class Spelling(_Words):
    """Write a word letter by letter: only to train on, since counting needs it."""

    def __init__(self, root: Path, split: str, size: int = 200_000) -> None:
        super().__init__("spelling", root, split, size)

    def item(self, index: int) -> Item:
        rng, word = self.draw(index)
        return _exchange(rng.choice(SPELL_ASKS).format(w=word), f"{word}: {','.join(word)}")


class SpellingBee(_Words):
    """Count a letter in a word; the answer stands behind `####`, like GSM8K's."""

    kind: Kind = "generative"

    def __init__(self, root: Path, split: str, size: int | None = None) -> None:
        size = size or (TEST_ITEMS if split == "test" else 80_000)
        super().__init__("spellingbee", root, split, size)

    def item(self, index: int) -> Item:
        rng, word = self.draw(index)
        letter = rng.choice(word) if rng.random() < 0.9 else rng.choice(ALPHABET)
        count, quote = word.count(letter), rng.choice(QUOTES)
        asked = rng.choice(COUNT_ASKS).format(c=quote.format(letter), w=quote.format(word))
        call = f'"{word}".count("{letter}")'
        answer = [
            {"type": "text", "text": f"{_by_hand(word, letter)}\n\nThe calculator says: "},
            {"type": "python", "text": call},
            {"type": "python_output", "text": str(count)},
            {"type": "text", "text": f"\n\n#### {count}"},
        ]
        return {**_exchange(asked, answer), "answer": str(count)}

    def check(self, item: Item, reply: str) -> bool:
        return is_right(item, reply)


def _by_hand(word: str, letter: str) -> str:
    """The word's letters one a line, those that count numbered."""
    seen, lines = 0, [f"{word}: {','.join(word)}", f"Looking for {letter}:"]
    for place, found in enumerate(word, 1):
        seen += found == letter
        lines.append(f"{place}:{found}" + (f" yes, {seen}" if found == letter else ""))
    return "\n".join([*lines, f"So {letter} comes {seen} time{'' if seen == 1 else 's'}."])


def _exchange(question: str, answer: str | list[dict[str, str]]) -> Item:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
