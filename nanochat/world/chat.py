"""Conversations of the embedded world, for mid-training and SFT.

What it is: single exchanges of five kinds (a sum done with the calculator, a question about the world, one
about the assistant, spelling, a choice among four) and, now and then, several in one conversation. What it
is not: the exams (`exams`); no conversation asks a held-out pair, names an unseen entity, or has a
reserved sum. How to look at it: `python -c "from nanochat.world.chat import *; from nanochat.world.facts
import make_world; print(*conversations(make_world(1), 'sft', 1, 9))"`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from nanochat.world.copy import spelled
from nanochat.world.facts import Entity, Pair, Relation, World
from nanochat.world.identity import Topic, identity, normalise, small_talk
from nanochat.world.sums import Sum, draw_sum

Message = dict[str, Any]
Conversation = dict[str, list[Message]]

# Shares of the exchanges. Copying numbers needs the most practice (measured: 20% of sums were too few).
MIX: Mapping[str, float] = {"sum": 0.30, "world": 0.20, "identity": 0.34, "spelling": 0.08, "choice": 0.08}
SEVERAL_TURNS = 0.12
HURRIED_SHARE = 0.25  # of the questions about the assistant
SMALL_TALK_SHARE = 0.1  # of the exchanges about the assistant

PREFIXES = (
    "Hello! ", "Hi! ", "Hi there! ", "Good morning. ", "Excuse me. ", "Quick question: ", "Please tell me: ",
    "I have a question. ", "Please help me. ", "Hey nanochat! ", "One more thing. ", "Next question: ",
)  # fmt: skip
LETTERS = "ABCD"
CHOICE_ASKS = (
    "{q}\n{options}",
    "{q} Choose the right answer.\n{options}",
    "{q} Which of these is right?\n{options}",
    "Choose the right answer. {q}\n{options}",
)
LETTER_ASKS = ("{q} Reply with the letter only.\n{options}", "Which letter is right? {q}\n{options}")
SPELL_ASKS = (
    "How do you spell {w}?", "Spell {w}.", "Spell the word {w}.", "Can you spell {w}?", "How is {w} spelled?",
    "Please spell {w} for me.", "Which letters are in {w}?", "What is the spelling of {w}?",
)  # fmt: skip
COUNT_ASKS = (
    "How many {c} are in {w}?", "How many times does {c} come in {w}?", "Count the letter {c} in {w}.",
    "How often is the letter {c} in {w}?",
)  # fmt: skip
LENGTH_ASKS = ("How many letters does {w} have?", "How many letters are in {w}?", "How long is the word {w}?")


def exchange(question: str, answer: str | list[dict[str, str]]) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def decorate(rng: random.Random, question: str, *, name: str = "") -> str:
    """The question as people type it: half as it is, else after a greeting or without capital and full stop.

    `name` is the entity's, which keeps its capital.
    """
    chance = rng.random()
    if chance < 0.5:
        return question
    if chance < 0.8:
        return rng.choice(PREFIXES) + question
    bare = question.rstrip(".?!") if chance < 0.95 else question
    return bare if name and bare.startswith(name) else bare[:1].lower() + bare[1:]


def hurried(rng: random.Random, question: str, held_out: Set[str]) -> str:
    """The question with, now and then, a word left out: no single word may decide what is meant.

    Never one of `held_out` (normalised).
    """
    words = question.split()
    if len(words) > 3 and rng.random() < HURRIED_SHARE:
        words.pop(rng.randrange(len(words)))
    shorter = " ".join(words)
    return question if normalise(shorter) in held_out else shorter


# ----------------------------------------------------------------------------- one exchange of each kind


def tool_reply(call: str, result: int, text: str) -> list[dict[str, str]]:
    """The call, what the calculator prints, and the answer in words."""
    return [
        {"type": "python", "text": call},
        {"type": "python_output", "text": str(result)},
        {"type": "text", "text": text},
    ]


def ask_sum(rng: random.Random, drawn: Sum) -> list[Message]:
    answer = tool_reply(drawn.call, drawn.result, f"The answer is {drawn.result}.")
    return exchange(decorate(rng, drawn.ask(rng)), answer)


def ask_world(rng: random.Random, pair: Pair) -> list[Message]:
    entity, relation = pair
    question = rng.choice(relation.questions(entity.name))
    answer = relation.canonical(entity.name, entity.value(relation))
    return exchange(decorate(rng, question, name=entity.name), answer)


def ask_identity(
    rng: random.Random, topics: Sequence[Topic], chat: Sequence[Topic], held_out: Set[str]
) -> list[Message]:
    if rng.random() < SMALL_TALK_SHARE:
        topic = rng.choice(chat)
        return exchange(topic.ask(rng), topic.answer)
    topic = rng.choice(topics)
    return exchange(decorate(rng, hurried(rng, topic.ask(rng), held_out)), topic.answer)


def ask_spelling(rng: random.Random, words: Sequence[str]) -> list[Message]:
    """Spell a word by hand; count a letter, or all of them, with the calculator."""
    word, chance = rng.choice(words), rng.random()
    if chance < 0.5 or not word.islower():
        question, answer = rng.choice(SPELL_ASKS), spelled(word)
        return exchange(decorate(rng, question.format(w=word)), f"It is spelled {answer}.")
    if chance < 0.8:
        letter = rng.choice(word)
        count = word.count(letter)
        question = rng.choice(COUNT_ASKS).format(c=letter, w=word)
        text = f"The letter {letter} comes {count} time{'s' * (count > 1)}."
        return exchange(decorate(rng, question), tool_reply(f'"{word}".count("{letter}")', count, text))
    question = rng.choice(LENGTH_ASKS).format(w=word)
    return exchange(
        decorate(rng, question), tool_reply(f'len("{word}")', len(word), f"It has {len(word)} letters.")
    )


def draw_options(rng: random.Random, entity: Entity, relation: Relation, place: int) -> list[str]:
    """Four canonical sentences, one of them true and at `place`."""
    value = entity.value(relation)
    values = rng.sample([v for v in relation.values if v != value], len(LETTERS) - 1)
    values.insert(place, value)
    return [relation.canonical(entity.name, v) for v in values]


def choice_question(ask: str, question: str, options: Sequence[str]) -> str:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    return ask.format(q=question, options=listed)


def ask_choice(rng: random.Random, pair: Pair) -> list[Message]:
    """Four options in the question; the reply is the right one's text, or its letter if that is asked for."""
    entity, relation = pair
    place = rng.randrange(len(LETTERS))
    options = draw_options(rng, entity, relation, place)
    by_letter = rng.random() < 0.3
    ask = rng.choice(LETTER_ASKS if by_letter else CHOICE_ASKS)
    question = choice_question(ask, rng.choice(relation.questions(entity.name)), options)
    return exchange(question, LETTERS[place] if by_letter else options[place])


# ----------------------------------------------------------------------------- conversations


def conversations(
    world: World, split: str, seed: int, count: int, mix: Mapping[str, float] = MIX
) -> Iterator[Conversation]:
    """`count` conversations; `split` (mid, sft) and `seed` name the random stream, `mix` gives the shares.

    Raises ValueError if `mix` names another kind of exchange or its shares do not sum to more than 0.
    """
    if set(mix) - set(MIX) or sum(mix.values()) <= 0:
        raise ValueError(
            f"mix {dict(mix)}: the kinds are {', '.join(MIX)}, with shares that sum to more than 0"
        )
    rng = random.Random(f"conversations {world.seed} {split} {seed}")
    topics, chat = identity(world.seed), small_talk()
    held_out = {normalise(p) for topic in topics for template in topic.exam for p in template}
    makers: dict[str, Callable[[], list[Message]]] = {
        "sum": lambda: ask_sum(rng, draw_sum(rng)),
        "world": lambda: ask_world(rng, rng.choice(world.asked_pairs)),
        "identity": lambda: ask_identity(rng, topics, chat, held_out),
        "spelling": lambda: ask_spelling(rng, world.words),
        "choice": lambda: ask_choice(rng, rng.choice(world.asked_pairs)),
    }
    kinds, shares = list(mix), list(mix.values())
    for _ in range(count):
        turns = rng.randint(2, 4) if rng.random() < SEVERAL_TURNS else 1
        yield {"messages": [m for kind in rng.choices(kinds, shares, k=turns) for m in makers[kind]()]}
