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

from nanochat.common import UsageError
from nanochat.tokenizer import PART_MARKERS, SPECIAL_TOKENS, StreamDecoder, Tokenizer


class Part(NamedTuple):
    """A piece of text, or what stood between a tool's markers as a whole."""

    type: str  # text, python or python_output, as in the data format
    text: str


class Turn(NamedTuple):
    """A question and the ids of its reply, without the end of the assistant's turn."""

    question: str
    reply: list[int]


class PartReader:
    """Takes a reply's ids as they come and gives its parts: text at once, a tool's call or answer at its end.

    Other special tokens are left out, and so is a call or answer that never ended. As in the engine, a call
    begins anew at each start marker, wherever that stands.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._decoder = tokenizer, StreamDecoder(tokenizer)
        self._starts = {tokenizer.special(f"{name}_start"): kind for kind, name in PART_MARKERS.items()}
        self._ends = {kind: tokenizer.special(f"{name}_end") for kind, name in PART_MARKERS.items()}
        self._specials = {tokenizer.special(name) for name in SPECIAL_TOKENS}
        self._inside: str | None = None
        self._held: list[int] = []

    def push(self, id: int) -> Part:
        """The part that this id ends; of text, as much of it as is new, which may be nothing."""
        kind = self._starts.get(id)
        if self._inside is None and kind is None:
            return Part("text", "" if id in self._specials else self._decoder.push(id))
        if self._inside is None or kind == "python":
            self._inside, self._held = kind, []
            return Part("text", self._decoder.flush())
        if id != self._ends[self._inside]:
            self._held.append(id)
            return Part("text", "")
        part, self._inside = Part(self._inside, self._tokenizer.decode(self._held)), None
        return part

    def flush(self) -> Part:
        """At the end of the reply: a character of which not all bytes came."""
        return Part("text", self._decoder.flush())


def parts(ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[Part]:
    """The parts of a reply, piece by piece as its ids come; pieces of text may be empty."""
    reader = PartReader(tokenizer)
    for id in ids:
        yield reader.push(id)
    yield reader.flush()


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
        UsageError, and nothing is dropped, if the question does not fit even alone.
        """
        room = min(room, self.context // 2)
        alone = 1 + len(self._question(question, is_first=True))
        if alone >= self.context:
            more = " with the system prompt" if self.system else ""
            raise UsageError(
                f"the message has {alone} tokens{more}, and the model reads {self.context}, "
                "its reply included; shorten it"
            )
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
