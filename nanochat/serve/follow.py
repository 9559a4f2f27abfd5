"""From the engine's events of one reply to what a client reads: text, tool calls, tokens, in order.

What it is: `Follower`, which turns events into `Piece`s. What it is not: JSON (`chat.py`, `text.py`).
Run: `pytest tests/serve`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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
    """One reply. Pieces hold no special token, and nothing of a call but in `Piece.tool`."""

    def __init__(self, model: Model, *, is_scored: bool = False) -> None:
        """`is_scored`: give every token, special ones too, as whoever scores a prompt counts them."""
        self.model, self.is_scored = model, is_scored
        self.prompt_tokens: list[Token] = []  # from the second on, if they were scored
        self._eye = Eye(model.rules)
        self._call: list[int] | None = None  # ids since python_start
        self._called: str | None = None  # a call that may yet be answered
        self._output: list[int] | None = None  # ids since output_start
        self._length = 0

    def pieces(self, event: Event) -> Iterator[Piece]:
        self.prompt_tokens += [self._token(score) for score in event.prompt_logprobs]
        for id in event.ids:
            yield from self._tool(id)
        if event.is_last:
            yield from self._answered(None)
        seen = [self._eye.sees(id) for id in event.ids]
        pairs = zip(event.logprobs, seen, strict=False)
        tokens = [self._token(score) for score, visible in pairs if visible or self.is_scored]
        self._length += len(event.text)
        if event.text or tokens or event.is_last:
            yield Piece(event.text, tokens=tokens, finish=event.finish)

    def _tool(self, id: int) -> Iterator[Piece]:
        markers = self.model.rules.markers
        if self._output is not None:
            if id == markers.output_end:
                yield from self._answered(self.model.rules.tokenizer.decode(self._output))
            else:
                self._output.append(id)
        elif self._called is not None and id == markers.output_start:
            self._output = []
        else:
            yield from self._answered(None)
            self._read(id)

    def _read(self, id: int) -> None:
        markers = self.model.rules.markers
        if id == markers.python_start:
            self._call = []
        elif self._call is not None and id == markers.python_end:
            self._called, self._call = self.model.rules.tokenizer.decode(self._call), None
        elif self._call is not None:
            self._call.append(id)

    def _answered(self, output: str | None) -> Iterator[Piece]:
        """The call that is waiting, if there is one, with its answer."""
        if self._called is not None:
            name = self.model.tools.name(self._called)
            use = {"name": name, "input": self._called, "output": output, "at": self._length}
            self._called = self._output = None
            yield Piece(tool=use)

    def _token(self, score: TokenLogprob) -> Token:
        top = [self._one(id, logprob) for id, logprob in score.top]
        return Token(self._raw(score.id), max(LEAST, score.logprob), top)

    def _one(self, id: int, logprob: float) -> Token:
        return Token(self._raw(id), max(LEAST, logprob))

    def _raw(self, id: int) -> bytes:
        return self.model.rules.tokenizer.decode_bytes([id])
