"""Texts of the embedded world with something to copy in context: numbers, sums, spelling, quotations, labels.

What it is: the part of the pretraining text that teaches reading back what was just written, which the
calculator tool and choosing among listed answers need. What it is not: facts of the world; the people here
are nameless. Every function takes the random source and returns one document.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from nanochat.world.sums import draw_number, draw_sum

ROLES = (
    "the clerk", "the child", "the old woman", "the guard", "the driver", "the nurse", "the girl", "the boy",
    "the visitor", "the neighbour", "the porter", "the grandfather",
)  # fmt: skip
OBJECTS = (
    "apple", "ball", "book", "bottle", "bowl", "brush", "candle", "card", "chair", "coin", "comb", "cup",
    "feather", "glove", "hammer", "hat", "key", "lamp", "letter", "map", "mirror", "needle", "pencil",
    "picture", "ring", "scarf", "spoon", "stamp", "stone", "ticket", "watch", "wheel",
)  # fmt: skip
SIZES = ("big", "small", "old", "new", "round", "heavy", "light", "clean", "pretty", "broken")
PLACES = (
    "on the table", "under the bed", "behind the door", "in the box", "by the window", "on the shelf",
    "in the drawer", "near the stove", "on the stairs", "in the yard",
)  # fmt: skip
COPIED_NUMBER = (
    "The ticket says {n}. {Who} wrote down {n}.",
    "{Who} counted {n} steps and told everyone about the {n} steps.",
    "The number on the door was {n}, so {who} asked for number {n}.",
    'The sign said {n}. "{n}," said {who}.',
    "The page number is {n}. Please turn to page {n}.",
    "{Who} lost card {n}. Later somebody found card {n}.",
    "The code is {n}. Remember it: {n}.",
    "A box held {n} stamps. {Who} counted them again: {n} stamps.",
)
SUM_LINES = (
    '"{ask}" {Who} typed {call} and read {result}. The answer is {result}.',
    "{ask} Type {call}. The machine shows {result}. The answer is {result}.",
    "{spoken} is written {call}. The result is {result}.",
    "{call} = {result}. So {spoken} is {result}.",
    "To work out {spoken}, {who} typed {call}. The machine showed {result}, so the answer is {result}.",
)
QUOTED = (
    '{Who} said, "{s}" Then {other} said it again: "{s}"',
    'The letter began with these words: "{s}" {Who} read it aloud: "{s}"',
    '{Who} wrote: "{s}" {Other} copied it: "{s}"',
    '{Who} whispered, "{s}" "What was that?" asked {other}. "{s}"',
)
HEADINGS = (
    "Copying numbers",
    "Numbers",
    "At the counter",
    "Number practice",
    "The ticket office",
    "Counting",
)
SUM_HEADINGS = ("Sums", "At the calculator", "Sums on paper", "Arithmetic practice", "The sum book")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lines(
    rng: random.Random, headings: tuple[str, ...], make: Callable[[], str], low: int, high: int
) -> str:
    """A heading and between `low` and `high` lines, as one paragraph or one line each."""
    lines = [make() for _ in range(rng.randint(low, high))]
    return f"{rng.choice(headings)}\n\n" + rng.choice(("\n", " ")).join(lines)


def _any_number(rng: random.Random) -> int:
    """Mostly up to 999; some as long as the product of two such numbers."""
    return rng.randint(1_000, 999_999) if rng.random() < 0.2 else draw_number(rng)


def copied_numbers(rng: random.Random) -> str:
    """Numbers that are written and then written again."""

    def line() -> str:
        if rng.random() < 0.35:
            numbers = ", ".join(str(_any_number(rng)) for _ in range(rng.randint(2, 5)))
            return f"Read: {numbers}. Write: {numbers}."
        who = rng.choice(ROLES)
        return rng.choice(COPIED_NUMBER).format(n=_any_number(rng), who=who, Who=_capital(who))

    return _lines(rng, HEADINGS, line, 4, 9)


def sums(rng: random.Random) -> str:
    """Sums in words, turned into what a calculator is given, with its result."""

    def line() -> str:
        drawn, who = draw_sum(rng), rng.choice(ROLES)
        return rng.choice(SUM_LINES).format(
            ask=drawn.ask(rng),
            call=drawn.call,
            result=drawn.result,
            spoken=drawn.spoken,
            who=who,
            Who=_capital(who),
        )

    return _lines(rng, SUM_HEADINGS, line, 3, 7)


def number_table(rng: random.Random) -> str:
    """A table of counts and sentences that read it back."""
    rows = [(thing, draw_number(rng)) for thing in rng.sample(OBJECTS, rng.randint(3, 6))]
    table = "\n".join(f"{thing} | {number}" for thing, number in rows)
    read = [f"The number beside {thing} is {number}." for thing, number in rng.sample(rows, len(rows))]
    return f"thing | number\n{table}\n\n" + " ".join(read)


def symbols(rng: random.Random) -> str:
    """The words of an operation beside its sign, with operands in both."""

    def line() -> str:
        drawn = draw_sum(rng)
        return rng.choice((f"{drawn.spoken}: {drawn.call}.", f"{drawn.ask(rng)} Type {drawn.call}."))

    return _lines(rng, ("From words to signs", "Short ways to write sums", "How to type it"), line, 6, 12)


def spelling(rng: random.Random, words: tuple[str, ...]) -> str:
    """Words, some letter by letter."""

    def line() -> str:
        word = rng.choice(words)
        letters = spelled(word)
        letter = rng.choice(word)
        times = "once" if word.count(letter) == 1 else f"{word.count(letter)} times"
        return rng.choice((
            f'"{word}" is spelled {letters}.',
            f"To write {word}, put down {letters}.",
            f"{letters} is how you spell {word}.",
            f"The word {word} has {len(word)} letters: {letters}.",
            f"In {letters} the letter {letter} comes {times}.",
        ))  # fmt: skip

    return _lines(rng, ("Spelling", "The spelling lesson", "Letters", "How words are written"), line, 5, 12)


def spelled(word: str) -> str:
    return "-".join(word)


def quotations(rng: random.Random) -> str:
    """Sentences that somebody says and somebody repeats."""

    def line() -> str:
        who, other = rng.sample(ROLES, 2)
        sentence = f"The {rng.choice(SIZES)} {rng.choice(OBJECTS)} is {rng.choice(PLACES)}."
        if rng.random() < 0.5:
            sentence = f"Bring the {rng.choice(OBJECTS)} and the {rng.choice(SIZES)} {rng.choice(OBJECTS)}."
        return rng.choice(QUOTED).format(
            s=sentence, who=who, Who=_capital(who), other=other, Other=_capital(other)
        )

    return _lines(rng, ("Said again", "What they said", "Repeating", "Word for word"), line, 2, 6)


def labels(rng: random.Random) -> str:
    """Things behind letters, then asked for by thing and by letter: what a listed choice needs."""
    letters = "ABCDEF"[: rng.randint(3, 6)]
    things = rng.sample(OBJECTS, len(letters))
    pairs = list(zip(letters, things, strict=True))
    listed = "\n".join(f"{letter}. {thing}" for letter, thing in pairs)
    read = [
        rng.choice(
            (f"The {thing} is {letter}.", f"{letter} is the {thing}.", f"Under {letter} stands the {thing}.")
        )
        for letter, thing in rng.sample(pairs, len(pairs))
    ]
    return f"{listed}\n\n" + " ".join(read)
