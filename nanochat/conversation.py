"""A conversation within a model's context: what is read again, what had to go, what a reply is made of.

What it is: turns with the ids that the model itself wrote (its words are never encoded anew), the system
prompt kept while the oldest turns go for want of room, and a reply's ids as parts: text, a tool's call, its
answer. What it is not: generation (`engine.py`), or a terminal (`terminal.py`).
Run: `pytest tests/test_conversation.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from nanochat.tokenizer import PART_MARKERS, SPECIAL_TOKENS, StreamDecoder, Tokenizer


class Part(NamedTuple):
    """A piece of text, or what stood between a tool's markers as a whole."""

    type: str  # text, python or python_output, as in the data format
    text: str


class Turn(NamedTuple):
    """A question and the ids of its reply, without the end of the assistant's turn."""

    question: str
    reply: list[int]


def parts(ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[Part]:
    """A reply's parts as its ids come: text at once, piece by piece, a tool's call or answer at its end.

    Other special tokens are left out, and so is a call or answer that never ended.
    """
    ends = {
        tokenizer.special(f"{name}_start"): (kind, tokenizer.special(f"{name}_end"))
        for kind, name in PART_MARKERS.items()
    }
    specials = {tokenizer.special(name) for name in SPECIAL_TOKENS}
    decoder = StreamDecoder(tokenizer)
    inside: tuple[str, int] | None = None
    held: list[int] = []
    for token in ids:
        if inside is not None and token == inside[1]:
            yield Part(inside[0], tokenizer.decode(held))
            inside = None
        elif inside is not None:
            held.append(token)
        elif token in ends:
            yield Part("text", decoder.flush())
            inside, held = ends[token], []
        elif token not in specials:
            yield Part("text", decoder.push(token))
    yield Part("text", decoder.flush())


class Conversation:
    """Turns that fit a context. `forgotten` counts those that the next prompt had no room for."""

    def __init__(self, tokenizer: Tokenizer, context: int, system: str = "") -> None:
        self.tokenizer, self.context, self.system = tokenizer, context, system
        self.turns: list[Turn] = []
        self.forgotten = 0

    def __len__(self) -> int:
        """Tokens of all turns: what the next prompt repeats."""
        return 1 + sum(len(ids) for ids in self._rendered())

    def prompt(self, question: str, room: int) -> list[int]:
        """Ids that ask for the next reply, with `room` tokens left for it if dropping old turns can do that.

        Turns that are dropped are gone. `room` is at most half the context, or a talk would have no memory.
        """
        room = min(room, self.context // 2)
        while True:
            ids = [self.tokenizer.bos_id, *itertools.chain(*self._rendered())]
            ids += self._question(question, is_first=not self.turns)
            if not self.turns or len(ids) + room <= self.context:
                return ids
            del self.turns[0]
            self.forgotten += 1

    def add(self, question: str, reply: list[int]) -> None:
        self.turns.append(Turn(question, reply))

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns, self.forgotten = [], 0

    def messages(self) -> list[dict[str, Any]]:
        """The turns as messages of the data format, the system prompt first."""
        said: list[dict[str, Any]] = [{"role": "system", "content": self.system}] * bool(self.system)
        for question, reply in self.turns:
            said.append({"role": "user", "content": question})
            said.append({"role": "assistant", "content": self._content(reply)})
        return said

    def _content(self, reply: list[int]) -> str | list[dict[str, str]]:
        grouped = [
            {"type": kind, "text": "".join(part.text for part in group)}
            for kind, group in itertools.groupby(parts(reply, self.tokenizer), key=lambda part: part.type)
        ]
        content = [part for part in grouped if part["text"]]
        return content if any(part["type"] != "text" for part in content) else _text(content)

    def _question(self, question: str, *, is_first: bool) -> list[int]:
        """A question with the tokens around it, up to the start of the reply."""
        messages = [{"role": "user", "content": question}]
        if is_first and self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        return self.tokenizer.render_for_completion({"messages": messages})[1:]

    def _rendered(self) -> Iterator[list[int]]:
        end = self.tokenizer.special("assistant_end")
        for number, turn in enumerate(self.turns):
            yield [*self._question(turn.question, is_first=number == 0), *turn.reply, end]


def _text(content: list[dict[str, str]]) -> str:
    return "".join(part["text"] for part in content)
