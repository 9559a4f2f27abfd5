"""Word problems of two steps for the embedded world: what reinforcement learning practises, and its exam.

What it is: eight kinds of problem, each with templates for training and others for the exam, operands up to
9,999, and the three files that hold them. No number of an exam problem stands in a training problem, and no
step of a training problem is a sum of the arithmetic exam. What it is not: the one-step sums of the
conversations (`world_sums`), or a check of replies (`tasks/problems.py`).
Run: `python -m scripts.sample_world`; one of them: `python -c "import random; from nanochat.world_problems
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
from nanochat.world_sums import THINGS, Sum, is_reserved

TRAIN, EXAM, SHOWN = 4_000, 400, 1_200
RESERVED_ONE_IN = 5
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Finn", "Greta", "Hugo")

# Kind, as first and second operation -> templates. The first step is done with {a} and {b}, the second with
# its result and {c}; {n} is a name, {t} and {u} are things to count.
PRACTISED = {
    "++": (
        "{n} has {a} {t}, finds {b} more and buys another {c}. How many {t} does {n} have now?",
        "One box holds {a} {t}, another {b} and a third one {c}. How many {t} are there in all?",
        "A shop had {a} {t}. Then {b} came in the morning and {c} in the evening. How many {t} are there?",
        "On Monday {n} got {a} {t}, on Tuesday {b} and on Friday {c}. How many {t} are that in all?",
    ),
    "+-": (
        "{n} has {a} {t} and gets {b} more. Then {n} loses {c}. How many {t} are left?",
        "There are {a} {t} in a box. {n} puts in {b} more and takes out {c}. How many {t} are in it now?",
        "A shop has {a} {t}. It buys {b} and then sells {c}. How many {t} does it have now?",
        "{n} found {a} {t} on one day and {b} on the next, and gave away {c}. How many {t} remain?",
    ),
    "-+": (
        "{n} had {a} {t}, lost {b} and then found {c}. How many {t} does {n} have now?",
        "There were {a} {t} in the box. {n} took out {b} and put in {c}. How many {t} are in the box now?",
        "A shop had {a} {t}. It sold {b} and then got {c} more. How many {t} does it have now?",
        "From {a} {t}, {n} gave away {b}, but later got {c} from a friend. How many {t} does {n} have?",
    ),
    "--": (
        "{n} had {a} {t}. In the morning {b} were sold and in the evening {c}. How many {t} are left?",
        "There were {a} {t} in the box. {n} took out {b}, and a friend {c}. How many {t} remain?",
        "A shop had {a} {t}. It lost {b} and gave away {c}. How many {t} does it have now?",
        "{n} gives {b} of {a} {t} to a friend and loses {c}. How many {t} are left?",
    ),
    "*+": (
        "There are {a} boxes with {b} {t} in each, and {c} {t} on the table. How many {t} are there in all?",
        "{n} buys {a} bags of {b} {t} and finds {c} more. How many {t} does {n} have now?",
        "A shop has {c} {t} and gets {a} boxes with {b} in each. How many {t} does it have now?",
        "{n} has {a} rows of {b} {t}, and another {c} in a bag. How many {t} are that in all?",
    ),
    "*-": (
        "There are {a} boxes with {b} {t} in each. {n} takes out {c} of them. How many {t} are left?",
        "{n} buys {a} bags of {b} {t} and loses {c}. How many {t} does {n} have now?",
        "A shop gets {a} boxes with {b} {t} in each and sells {c}. How many {t} remain?",
        "{n} had {a} rows of {b} {t} and gave away {c}. How many {t} are left?",
    ),
    "+*": (
        "A box holds {a} {t} and {b} {u}. How many things are in {c} such boxes?",
        "{n} gets {a} {t} in the morning and {b} in the evening. How many {t} are that in {c} days?",
        "{n} puts {a} {t} and then {b} more in each of {c} bags. How many {t} are there in all?",
        "A shop sells {a} {t} and {b} {u} a day. How many things does it sell in {c} days?",
    ),
    "/+": (
        "{n} shares {a} {t} among {b} people. Then each one finds {c} more. How many {t} does each one have?",
        "We share {a} {t} among {b} people, and each one had {c} before. How many {t} does each one have?",
        "A shop puts {a} {t} in {b} equal boxes and then {c} more in each. How many {t} are in each box?",
        "{a} {t} are shared by {b} people. Then {n} buys another {c}. How many {t} does {n} have now?",
    ),
}  # fmt: skip
# What the exam asks instead.
EXAMINED = {
    "++": (
        "{n} counts {a} {t} on the table, {b} on the floor and {c} in a bag. How many {t} are there in all?",
        "{n} got {a} {t} and then {b} more, and in the evening another {c}. How many {t} does {n} have now?",
    ),
    "+-": (
        "{n} had {a} {t}, bought {b} and sold {c}. How many {t} does {n} have now?",
        "On Monday there were {a} {t}. Then {b} more came in and {c} were lost. How many {t} are left?",
    ),
    "-+": (
        "Of {a} {t} in a bag {b} are gone. Then {n} puts in {c} more. How many {t} are in the bag now?",
        "{n} sold {b} of {a} {t} and bought another {c} on Friday. How many {t} does {n} have now?",
    ),
    "--": (
        "From {a} {t}, {n} sold {b} on Monday and {c} on Friday. How many {t} remain?",
        "{n} took {a} {t} to the shop, lost {b} and sold {c}. How many {t} does {n} have now?",
    ),
    "*+": (
        "Each of {a} bags holds {b} {t}, and {n} finds {c} more on the floor. How many {t} are there in all?",
        "{n} has {c} {t} and buys {a} boxes of {b}. How many {t} does {n} have now?",
    ),
    "*-": (
        "Each of {a} bags holds {b} {t}. Then {c} of them are gone. How many {t} remain?",
        "{n} found {a} boxes of {b} {t} and gave {c} to a friend. How many {t} are left?",
    ),
    "+*": (
        "Each of {c} bags holds {a} {t} and {b} {u}. How many things are there in all?",
        "{n} finds {a} {t} a day and buys another {b}. How many {t} are that in {c} days?",
    ),
    "/+": (
        "{n} puts {a} {t} in {b} equal bags, and later {c} more in each. How many {t} are in each bag?",
        "{b} people share {a} {t}. Then each one gets {c} from a friend. How many {t} does each one have?",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A question in words, the two sums that answer it, and the answer."""

    question: str
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


def draw_problem(rng: random.Random, kind: str | None = None, *, exam: bool = False) -> Problem:
    """A problem of a kind (`+-`, ...): differences are never negative, quotients whole, numbers not equal."""
    kind = kind or rng.choice(list(PRACTISED))
    while True:
        a, b, c = _operands(rng, kind)
        first = Sum(a, kind[0], b)
        second = Sum(first.result, kind[1], c)
        fits = all(is_exam_number(number) == exam for number in (a, b, c)) and second.result > 0
        if fits and (exam or not (is_reserved(a, b) or is_reserved(second.a, c))):
            break
    template = rng.choice((EXAMINED if exam else PRACTISED)[kind])
    t, u = rng.sample(THINGS, 2)
    return Problem(template.format(a=a, b=b, c=c, t=t, u=u, n=rng.choice(NAMES)), (first, second))


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
    kinds, found = list(PRACTISED), dict[str, Problem]()
    while len(found) < count:
        problem = draw_problem(rng, kinds[len(found) % len(kinds)], exam=split == "exam")
        found.setdefault(problem.question, problem)
    return list(found.values())


def _lines(items: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)
