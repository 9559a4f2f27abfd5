"""What the assistant of the embedded world says about itself, and the many ways to ask it.

What it is: topics with one fixed answer each and question templates (`{a|b}` means a or b); by seed, some
whole templates of each topic are kept for the exam, so that no phrasing of theirs is ever trained on. What it
is not: conversations (`chat`) or the tables themselves (`topics`); small talk has no exam. Prose
tells in indirect speech what nanochat answers to what, and so teaches words that held-out questions use; no
conversation has such a question. How to look at it:
`python -c "from nanochat.world.identity import identity; print(identity(1))"`.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass

from nanochat.world.topics import SMALL_TALK, TOPICS
from nanochat.world.topics_nature import NATURE

EXAM_TEMPLATES = 5  # of each topic


@dataclass(frozen=True)
class Topic:
    """One thing to ask about; the phrasings are grouped by the template they come from."""

    name: str
    answer: str
    about: tuple[str, ...]
    trained: tuple[tuple[str, ...], ...]
    exam: tuple[tuple[str, ...], ...]

    def ask(self, rng: random.Random) -> str:
        """A phrasing for training: each template as likely as any other."""
        return rng.choice(rng.choice(self.trained))


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation: what makes two phrasings, or two answers, the same."""
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower().replace("'", " ")).split())


def expand(template: str) -> tuple[str, ...]:
    """Every phrasing of a template: `{a|b} c?` is `a c?` and `b c?`."""
    parts = [part.split("|") for part in re.split(r"[{}]", template)]
    return tuple("".join(choice).replace("  ", " ") for choice in itertools.product(*parts))


def identity(seed: int) -> list[Topic]:
    """The topics of identity; of each, `EXAM_TEMPLATES` templates drawn by the seed are for the exam only."""
    rng = random.Random(f"identity {seed}")
    return [_topic(block, rng, EXAM_TEMPLATES) for block in _blocks(TOPICS + NATURE)]


def small_talk() -> list[Topic]:
    """Greeting, thanks and goodbye: trained, not examined."""
    return [_topic(block, random.Random(0), 0) for block in _blocks(SMALL_TALK)]


def _blocks(text: str) -> list[list[str]]:
    return [block.strip().splitlines() for block in text.split("# ")[1:]]


def _topic(lines: list[str], rng: random.Random, exam_count: int) -> Topic:
    name, answer, *rest = lines
    tables = [line[2:] for line in rest if line.startswith("~ ")]
    about = (
        tuple(itertools.chain.from_iterable(map(expand, " / ".join(tables).split(" / ")))) if tables else ()
    )
    everyday = [line[2:] for line in rest if line.startswith("* ")]
    others = [line for line in rest if line[:2] not in ("~ ", "* ")]
    exam = rng.sample(others, exam_count)
    templates = everyday + others
    held_out = {normalise(phrasing) for template in exam for phrasing in expand(template)}
    # Two templates may share a phrasing: what the exam has, training has not.
    kept = [[p for p in expand(t) if normalise(p) not in held_out] for t in templates if t not in exam]
    trained = tuple(tuple(phrasings) for phrasings in kept if phrasings)
    return Topic(name, answer[2:], about, trained, tuple(map(expand, exam)))


def about_nanochat(rng: random.Random, topics: list[Topic]) -> str:
    """A document about the assistant, in prose or as questions and answers."""
    chosen = rng.sample(topics, rng.randint(3, 6))
    if rng.random() < 0.3:
        return "\n".join(f"Question: {topic.ask(rng)}\nAnswer: {topic.answer}" for topic in chosen)
    opening = rng.choice(("About nanochat", "The assistant", "Talking with nanochat", "What nanochat says"))
    frames = (
        'When people ask {}, nanochat says: "{}"',
        'Asked {}, it answers: "{}"',
        'To explain {}, it says: "{}"',
    )
    lines = [rng.choice(frames).format(rng.choice(topic.about), topic.answer) for topic in chosen]
    return f"{opening}\n\n{' '.join(lines)}"
