"""Who the assistant is: short conversations for training, made here, so that every model knows its name.

The questions and answers are those of the embedded world that hold for any model of this kit, wherever it
was trained. What it is not: a persona; for one of your own, write a JSONL file and name it in the mixture.
Run: `python -m scripts.mid_train --mixture identity,smoltalk`.
"""

from __future__ import annotations

import random

from nanochat.world.chat import ask_identity
from nanochat.world.identity import identity, small_talk
from tasks.common import Item, Task, digest

TOPICS = ("name", "maker", "person", "memory", "feelings", "purpose")  # the others are of the small world
SEVERAL_TURNS = 0.2


class Identity(Task):
    """`size` conversations of one to three questions."""

    def __init__(self, size: int = 1000) -> None:
        self.topics = [topic for topic in identity(0) if topic.name in TOPICS]
        self.chat = small_talk()
        super().__init__("identity", size, digest([(t.name, t.answer, t.trained) for t in self.topics]))

    def item(self, index: int) -> Item:
        rng = random.Random(f"identity conversation {index}")
        turns = rng.randint(2, 3) if rng.random() < SEVERAL_TURNS else 1
        asked = [ask_identity(rng, self.topics, self.chat, frozenset()) for _ in range(turns)]
        return {"messages": [message for exchange in asked for message in exchange]}
