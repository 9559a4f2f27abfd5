"""From the engine's events of one reply to what a client reads: text, tool calls, tokens, in order.

What it is: `Follower`, which turns events into `Piece`s. What it is not: JSON (`chat.py`, `text.py`).
Run: `pytest tests/serve`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nanochat.conversation import Part, PartReader
from nanochat.reply import Eye
from nanochat.request import TokenLogprob
from nanochat.scheduler import Event
from nanochat.serve.model import Model

LEAST = -9999.0  # JSON has no minus infinity


@dataclass(frozen=True)
class Token:
    """A token with its log-probability in nats, and the likeliest in its place."""

    raw: bytes
    logprob: float | None
    top: list[Token] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """Some text with its tokens (if log-probabilities were asked for), or a tool's call, or the end."""

    text: str = ""
    tool: dict[str, Any] | None = None
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None


class Follower:
    """One reply. Pieces hold no special token, and nothing of a call but in `Piece.tool`.

    A call stands where the model made it: text before it that a stop string held back comes before it.
    """

    def __init__(self, model: Model, *, is_scored: bool = False) -> None:
        """`is_scored`: give every token, special ones too, as whoever scores a prompt counts them."""
        self.model, self.is_scored = model, is_scored
        self.prompt_tokens: list[Token] = []  # from the second on, if they were scored
        self._eye = Eye(model.rules)
        self._reader = PartReader(model.rules.tokenizer)
        self._called: str | None = None  # a call that may yet be answered
        self._uses: list[dict[str, Any]] = []  # calls that wait for the text before them
        self._read = self._length = 0  # characters of visible text, before and after the stop strings

    def pieces(self, event: Event) -> Iterator[Piece]:
        self.prompt_tokens += [self._token(score) for score in event.prompt_logprobs]
        for id in event.ids:
            self._take(self._reader.push(id))
        if event.is_last:
            self._settle(None)
        text = event.text
        while self._uses and (event.is_last or self._uses[0]["at"] <= self._length + len(text)):
            use = self._uses.pop(0)
            cut = max(0, use["at"] - self._length)
            before, text = text[:cut], text[cut:]
            self._length += len(before)
            if before:
                yield Piece(before)
            yield Piece(tool=use | {"at": self._length})
        seen = [self._eye.sees(id) for id in event.ids]
        pairs = zip(event.logprobs, seen, strict=False)
        tokens = [self._token(score) for score, visible in pairs if visible or self.is_scored]
        self._length += len(text)
        if text or tokens or event.is_last:
            yield Piece(text, tokens=tokens, finish=event.finish)

    def _take(self, part: Part) -> None:
        if part.type == "python_output":
            self._settle(part.text)
        elif part.type == "python":
            self._settle(None)
            self._called = part.text
        elif part.text:
            self._settle(None)
            self._read += len(part.text)

    def _settle(self, output: str | None) -> None:
        """The call that waits, if there is one, has its answer, or gets none."""
        if self._called is not None:
            name = self.model.tools.name(self._called)
            self._uses.append({"name": name, "input": self._called, "output": output, "at": self._read})
            self._called = None

    def _token(self, score: TokenLogprob) -> Token:
        top = [self._one(id, logprob) for id, logprob in score.top]
        return Token(self._raw(score.id), max(LEAST, score.logprob), top)

    def _one(self, id: int, logprob: float) -> Token:
        return Token(self._raw(id), max(LEAST, logprob))

    def _raw(self, id: int) -> bytes:
        return self.model.rules.tokenizer.decode_bytes([id])
