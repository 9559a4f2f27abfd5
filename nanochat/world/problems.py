"""Word problems of two steps for the embedded world: what reinforcement learning practises, and its exam.

What it is: eight kinds of problem with operands up to 9,999, told in three or four sentences, and the files
that hold them. A template is a sequence of sentences: an exam problem has one that no training problem has
(its sentences are known, in other company) and numbers that stand in no training problem. No step of a
training problem is a sum of the arithmetic exam. What it is not: the one-step sums of the
conversations (`sums`), or a check of replies (`tasks/problems.py`).
Run: `python -m scripts.sample_world`; one of them: `python -c "import random; from nanochat.world.problems
import draw_problem; print(draw_problem(random.Random(1)))"`.

    problems.jsonl        to practise: `messages` that end with the question, and the `result`
    problems_exam.jsonl   the same, of templates and numbers that are kept from all training
    problems_sft.jsonl    a few conversations that show the form: two calls, then the answer
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.common import UsageError, atomic_path
from nanochat.world.sums import THINGS, Sum, is_reserved

TRAIN, EXAM, SHOWN = 4_000, 400, 600
RESERVED_ONE_IN, TEMPLATES_ONE_IN = 5, 4
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Finn", "Greta", "Hugo")

# Sentences: what there is at first, by the first operation; what is done with one number more; the question.
# {n} is a name, {t} things to count, {a} and {b} the operands of the first step, {x} those of one sentence.
THERE_ARE = (
    "{n} has {a} {t}.", "There were {a} {t} in a shop.", "A box holds {a} {t}.", "{n} counts {a} {t}.",
)  # fmt: skip
OPENINGS = {
    "+": THERE_ARE,
    "-": THERE_ARE,
    "*": (
        "There are {a} boxes with {b} {t} in each.", "{n} has {a} bags of {b} {t}.",
        "{n} gets {a} boxes, and each holds {b} {t}.", "In a shop are {a} rows of {b} {t}.",
    ),
    "/": (
        "{b} people share {a} {t}, and {n} is one of them.", "{n} gets one of {b} equal parts of {a} {t}.",
        "We share {a} {t} among {b} people. {n} takes one part.",
        "{a} {t} are put in {b} boxes. {n} has one.",
    ),
}  # fmt: skip
EVENTS = {
    "+": (
        "Then {n} finds {x} more.", "{n} buys another {x}.", "In the morning {x} more come in.",
        "A friend brings {x}.", "{x} are put beside them.",
    ),
    "-": (
        "Then {n} loses {x}.", "{n} sells {x} of them.", "In the evening {x} are gone.",
        "A friend takes {x} away.", "{x} are given to others.",
    ),
    "*": ("It is the same on {x} days.", "There are {x} such places.", "In all it is {x} times as many."),
}  # fmt: skip
ASKS = ("How many {t} are there now?", "How many {t} is that in the end?", "What is the number of {t} now?")
KINDS = ("++", "+-", "-+", "--", "*+", "*-", "+*", "/+")  # first operation, second


@dataclass(frozen=True)
class Problem:
    """A question in words, the two sums that answer it, and the answer."""

    question: str
    template: str
    steps: tuple[Sum, Sum]

    @property
    def result(self) -> int:
        return self.steps[1].result

    def item(self) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": self.question}], "result": self.result}

    def shown(self) -> dict[str, Any]:
        """A conversation in which each step is a call of the calculator."""
        parts = []
        for step in self.steps:
            parts.append({"type": "python", "text": step.call})
            parts.append({"type": "python_output", "text": str(step.result)})
        parts.append({"type": "text", "text": f"The answer is {self.result}."})
        return {"messages": [*self.item()["messages"], {"role": "assistant", "content": parts}]}


def is_exam_number(number: int) -> bool:
    """Whether this number stands in exam problems only: one in five, whatever the seed."""
    return zlib.crc32(f"problem {number}".encode()) % RESERVED_ONE_IN == 0


def is_exam_template(template: str) -> bool:
    """Whether this sequence of sentences is asked in exam problems only: one in four, whatever the seed."""
    return zlib.crc32(template.encode()) % TEMPLATES_ONE_IN == 0


def draw_problem(rng: random.Random, kind: str | None = None, *, exam: bool = False) -> Problem:
    """A problem of a kind (`+-`, ...): differences are never negative, quotients whole, numbers not equal."""
    kind = kind or rng.choice(KINDS)
    while True:
        a, b, c = _operands(rng, kind)
        first = Sum(a, kind[0], b)
        second = Sum(first.result, kind[1], c)
        fits = all(is_exam_number(number) == exam for number in (a, b, c)) and second.result > 0
        if fits and (exam or not (is_reserved(a, b) or is_reserved(second.a, c))):
            break
    while is_exam_template(template := _draw_template(rng, kind)) != exam:
        pass
    question = template.format(a=a, b=b, c=c, t=rng.choice(THINGS), n=rng.choice(NAMES))
    return Problem(question, template, (first, second))


def _draw_template(rng: random.Random, kind: str) -> str:
    sentences = [rng.choice(OPENINGS[kind[0]])]
    if kind[0] in "+-":
        sentences.append(rng.choice(EVENTS[kind[0]]).replace("{x}", "{b}"))
    sentences.append(rng.choice(EVENTS[kind[1]]).replace("{x}", "{c}"))
    return " ".join([*sentences, rng.choice(ASKS)])


def _operands(rng: random.Random, kind: str) -> tuple[int, int, int]:
    """Three different numbers that may do for a kind; the caller looks whether the result is positive."""
    many = (100, 9_999)
    if kind == "/+":
        b = rng.randint(3, 60)
        a, c = b * rng.randint(11, 9_999 // b), rng.randint(11, 999)
    elif kind == "+*":
        a, b, c = rng.randint(11, 999), rng.randint(11, 999), rng.randint(3, 60)
    elif kind[0] == "*":
        a, b, c = rng.randint(11, 999), rng.randint(3, 60), rng.randint(*many)
    else:
        a, b, c = (rng.randint(*many) for _ in range(3))
        a, b = (max(a, b), min(a, b)) if kind[0] == "-" else (a, b)
    return (a, b, c) if len({a, b, c}) == 3 else _operands(rng, kind)


# ----------------------------------------------------------------------------- files


def write_problems(directory: Path, seed: int) -> dict[str, int]:
    """Write the three files, or keep those that are there; returns how many problems each holds.

    ValueError if one of them is there with other problems: it is never overwritten.
    """
    texts = {
        "problems.jsonl": _lines(p.item() for p in _distinct(seed, "train", TRAIN)),
        "problems_exam.jsonl": _lines(p.item() for p in _distinct(seed, "exam", EXAM)),
        "problems_sft.jsonl": _lines(p.shown() for p in _distinct(seed, "sft", SHOWN)),
    }
    for name, text in texts.items():
        path = directory / name
        if path.is_file():
            if path.read_text(encoding="utf-8") != text:
                raise UsageError(f"{path} holds other problems; choose another --data-dir, or delete it")
            continue
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {name: text.count("\n") for name, text in texts.items()}


def _distinct(seed: int, split: str, count: int) -> list[Problem]:
    """Problems of all kinds equally often, no question twice."""
    rng = random.Random(f"problems {seed} {split}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = draw_problem(rng, KINDS[len(found) % len(KINDS)], exam=split == "exam")
        found.setdefault(problem.question, problem)
    return list(found.values())


def _lines(items: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)
