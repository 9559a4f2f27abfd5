"""Sums for the embedded world: operands up to 999, four operations, and the pairs that only exams may use.

What it is: how numbers are drawn, how a sum is asked in words and how the calculator is called. What it is
not: the calculator (`calculator.calculate`, whose output `Sum.result` equals). How to look at it:
`python -c "import random; from nanochat.world.sums import draw_sum; print(draw_sum(random.Random(1)))"`.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

TOP = 999
RESERVED_ONE_IN = 10
THINGS = ("coins", "books", "eggs", "stamps", "marbles", "cards", "shells", "pencils")

# Phrasings by operation; `{t}` is a thing to count. Some name the second operand first.
ASKS = {
    "+": (
        "What is {a} plus {b}?",
        "What is {a} + {b}?",
        "{a} + {b} = ?",
        "Add {a} and {b}.",
        "How much is {a} plus {b}?",
        "What is the sum of {a} and {b}?",
        "Calculate {a} plus {b}.",
        "What do you get if you add {b} to {a}?",
        "I have {a} {t} and get {b} more. How many {t} do I have now?",
        "There are {a} {t} here and {b} {t} there. How many {t} are there in all?",
    ),
    "-": (
        "What is {a} minus {b}?",
        "What is {a} - {b}?",
        "{a} - {b} = ?",
        "How much is {a} minus {b}?",
        "What is {a} take away {b}?",
        "Calculate {a} minus {b}.",
        "Take {b} away from {a}.",
        "What is the difference between {a} and {b}?",
        "I had {a} {t} and lost {b}. How many {t} are left?",
        "There were {a} {t} in the box. Now {b} are gone. How many {t} remain?",
    ),
    "*": (
        "What is {a} times {b}?",
        "What is {a} * {b}?",
        "{a} x {b} = ?",
        "Multiply {a} by {b}.",
        "How much is {a} times {b}?",
        "What is the product of {a} and {b}?",
        "Calculate {a} times {b}.",
        "What do you get if you multiply {a} by {b}?",
        "There are {a} boxes with {b} {t} in each. How many {t} are there in all?",
    ),
    "/": (
        "What is {a} divided by {b}?",
        "What is {a} / {b}?",
        "{a} / {b} = ?",
        "Divide {a} by {b}.",
        "How much is {a} divided by {b}?",
        "Calculate {a} divided by {b}.",
        "What do you get if you divide {a} by {b}?",
        "How many times does {b} go into {a}?",
        "We share {a} {t} among {b} people. How many {t} does each one get?",
    ),
}
SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def is_reserved(a: int, b: int) -> bool:
    """Whether this pair of operands, in either order, is kept for exams: one in ten, whatever the seed."""
    return zlib.crc32(f"{min(a, b)} {max(a, b)}".encode()) % RESERVED_ONE_IN == 0


@dataclass(frozen=True)
class Sum:
    """One sum with an exact whole result."""

    a: int
    operation: str
    b: int

    @property
    def call(self) -> str:
        """What the assistant writes between the calculator's marks."""
        return f"{self.a}{self.operation}{self.b}"

    @property
    def result(self) -> int:
        operations = {
            "+": self.a + self.b,
            "-": self.a - self.b,
            "*": self.a * self.b,
            "/": self.a // max(1, self.b),
        }
        return operations[self.operation]

    @property
    def spoken(self) -> str:
        return f"{self.a} {SPOKEN[self.operation]} {self.b}"

    def ask(self, rng: random.Random) -> str:
        """One phrasing of this sum; a story of things needs at least two of each."""
        asks = [ask for ask in ASKS[self.operation] if "{t}" not in ask or min(self.a, self.b) > 1]
        return rng.choice(asks).format(a=self.a, b=self.b, t=rng.choice(THINGS))


def draw_number(rng: random.Random) -> int:
    """A number from 0 to 999, mostly of three digits, repeated digits twice as often as by chance.

    Copying a number digit by digit is easy until a digit comes twice, so those are practised more.
    """
    digits = rng.choices((1, 2, 3), (1, 2, 5))[0]
    if digits == 3 and rng.random() < 0.25:
        x, y = str(rng.randint(1, 9)), str(rng.randint(0, 9))
        return int(rng.choice((x + x + y, x + y + y, x + y + x, x + x + x)))
    return rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)


def draw_sum(rng: random.Random, operation: str | None = None, *, reserved: bool = False) -> Sum:
    """A sum over operands up to 999: a difference is never negative, a quotient always whole.

    `reserved` says whether the pair must be one of those kept for exams or one of the others.
    """
    operation = operation or rng.choice("+-*/")
    while True:
        a, b = draw_number(rng), draw_number(rng)
        if operation == "-":
            a, b = max(a, b), min(a, b)
        elif operation == "*" and rng.random() < 0.5:
            b = rng.randint(2, 99)
        elif operation == "/":
            b = rng.randint(2, 12) if rng.random() < 0.6 else rng.randint(13, 99)
            a = b * rng.randint(1, TOP // b)
        if is_reserved(a, b) == reserved:
            return Sum(a, operation, b)
