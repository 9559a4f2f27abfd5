"""The exams of the embedded world: what no conversation of the same world has asked.

What it is: lists of items, each a dict with `messages` (a conversation that ends with the user's question)
and what a right reply is. What it is not: how a reply is checked (`tasks/sample_world.py`) or got.

    world_mc                  held-out pairs, four options: `options` (reply texts), `gold`, `letter_messages`
    world_generative          held-out pairs: `answer` (a word), `others` (wrong ones), `sentence` (canonical)
    world_generative_unseen   the same about entities that no conversation has named
    arithmetic                reserved operands up to 999, each operation equally often: `calls`, `result`
    identity                  phrasings of held-out templates, after a greeting or carelessly typed: `answer`
    stop                      prompts of the other exams: any reply that is not empty and ends itself

How to look at it: `python -c "from nanochat.world.exams import *; from nanochat.world.facts import *;
print(make_exams(make_world(1))['world_mc'][0])"`.
"""

from __future__ import annotations

import random
from typing import Any

from nanochat.world.chat import (
    CHOICE_ASKS,
    LETTER_ASKS,
    LETTERS,
    Message,
    choice_question,
    decorate,
    draw_options,
)
from nanochat.world.facts import Pair, World
from nanochat.world.identity import Topic, identity
from nanochat.world.sums import draw_sum

ITEMS = 400  # an exam has at least so many

Item = dict[str, Any]


def make_exams(world: World) -> dict[str, list[Item]]:
    """Every exam of this world; the same items whenever the world is the same."""
    rng = random.Random(f"exams {world.seed}")
    exams = {
        "world_mc": _choice(world.held_out_pairs, rng),
        "world_generative": _generative(world.held_out_pairs, rng),
        "world_generative_unseen": _generative(world.unseen_pairs, rng),
        "arithmetic": _arithmetic(rng),
        "identity": _identity(identity(world.seed), rng),
    }
    generative = [name for name in exams if name != "world_mc"]
    exams["stop"] = [
        {"messages": item["messages"]}
        for name in generative
        for item in rng.sample(exams[name], ITEMS // len(generative))
    ]
    return exams


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _asked(pairs: tuple[Pair, ...], rng: random.Random) -> list[tuple[Pair, str]]:
    """Each pair under as many different phrasings as it takes to have `ITEMS` of them."""
    phrasings = -(-ITEMS // len(pairs))
    return [(pair, q) for pair in pairs for q in rng.sample(pair[1].questions(pair[0].name), phrasings)]


def _choice(pairs: tuple[Pair, ...], rng: random.Random) -> list[Item]:
    asked = _asked(pairs, rng)
    places = [i % len(LETTERS) for i in range(len(asked))]
    rng.shuffle(places)
    items = []
    for ((entity, relation), question), place in zip(asked, places, strict=True):
        options = draw_options(rng, entity, relation, place)
        by_text, by_letter = (
            choice_question(rng.choice(asks), question, options) for asks in (CHOICE_ASKS, LETTER_ASKS)
        )
        items.append({
            "messages": _user(by_text), "letter_messages": _user(by_letter),
            "options": options, "gold": place, "entity": entity.name, "relation": relation.name,
        })  # fmt: skip
    return items


def _generative(pairs: tuple[Pair, ...], rng: random.Random) -> list[Item]:
    items = []
    for (entity, relation), question in _asked(pairs, rng):
        answer = entity.value(relation)
        items.append({
            "messages": _user(decorate(rng, question, name=entity.name)),
            "answer": answer, "others": [v for v in relation.values if v != answer],
            "sentence": relation.canonical(entity.name, answer),
            "entity": entity.name, "relation": relation.name,
        })  # fmt: skip
    return items


def _arithmetic(rng: random.Random) -> list[Item]:
    items: dict[str, Item] = {}
    while len(items) < ITEMS:
        drawn = draw_sum(rng, "+-*/"[len(items) % 4], reserved=True)
        question = decorate(rng, drawn.ask(rng))
        # The order of the operands does not matter where the result does not depend on it.
        calls = [drawn.call] + [f"{drawn.b}{drawn.operation}{drawn.a}"] * (drawn.operation in "+*")
        items[question] = {"messages": _user(question), "calls": calls, "result": drawn.result}
    return list(items.values())


def _identity(topics: list[Topic], rng: random.Random) -> list[Item]:
    """Topics and their held-out templates equally often; a phrasing comes back only in another spelling."""
    items: dict[str, Item] = {}
    for topic in topics:
        goal = len(items) + -(-ITEMS // len(topics))
        turn = 0
        while len(items) < goal:
            phrasing = rng.choice(topic.exam[turn % len(topic.exam)])
            question = decorate(rng, phrasing)
            items.setdefault(question, {
                "messages": _user(question), "answer": topic.answer,
                "topic": topic.name, "phrasing": phrasing,
            })  # fmt: skip
            turn += 1
    return list(items.values())
