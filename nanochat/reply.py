"""A reply in the making: what becomes of each sampled token.

What it is: the rules of a row that need no tensors: stop tokens, stop strings, a tool's answer forced in
the place of sampled tokens, the text that a reader sees, piece by piece. What it is not: the choice of
tokens (`sampling.py`) or their computation (`batch.py`). Run: `pytest tests/test_reply.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from nanochat.request import Completion, Finish, Request, TokenLogprob, Usage
from nanochat.tokenizer import SPECIAL_TOKENS, StreamDecoder, Tokenizer

Tool = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Markers:
    """Ids of the special tokens that steer a row."""

    python_start: int
    python_end: int
    output_start: int
    output_end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Markers:
        return cls(*(tokenizer.special(name) for name in cls.__dataclass_fields__))


class Rules:
    """What all replies of an engine have in common: its tokenizer, its tool, its default stops."""

    def __init__(self, tokenizer: Tokenizer, tool: Tool | None) -> None:
        self.tokenizer, self.tool = tokenizer, tool
        self.markers = Markers.of(tokenizer)
        self.specials = frozenset(tokenizer.special(name) for name in SPECIAL_TOKENS)
        self.stop = frozenset((tokenizer.special("assistant_end"), tokenizer.bos_id))
        self.ends = {
            self.markers.python_start: self.markers.python_end,
            self.markers.output_start: self.markers.output_end,
        }

    def answer(self, call: list[int]) -> list[int]:
        """Tokens to force after a tool call: its result between the output markers, or nothing."""
        result = None if self.tool is None else self.tool(self.tokenizer.decode(call))
        if result is None:
            return []
        return [self.markers.output_start, *self.tokenizer.encode(result), self.markers.output_end]

    def visible(self, ids: Iterable[int]) -> Iterator[int]:
        """The ids that a reader sees: no special tokens, nothing between the markers of a tool."""
        return filter(Eye(self).sees, ids)


class Eye:
    """Follows a reply and tells of each token whether a reader sees it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._until: int | None = None  # the marker that ends what is hidden

    def sees(self, token: int) -> bool:
        if self._until is not None:
            self._until = None if token == self._until else self._until
            return False
        self._until = self._rules.ends.get(token)
        return token not in self._rules.specials


class StopText:
    """Passes text on up to the first of some strings to be complete; holds back what may start one."""

    def __init__(self, stops: Collection[str]) -> None:
        self.stops = stops
        self.found: str | None = None
        self._held = ""

    def push(self, piece: str) -> str:
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(at + len(stop), at, stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if hits:
            _, at, self.found = min(hits)
            self._held = ""
            return text[:at]
        keep = max((self._overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        rest, self._held = self._held, ""
        return rest

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Longest end of the text that the stop string, though longer, begins with."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class VisibleText:
    """The text that a reader sees of a growing reply, in pieces that are never taken back."""

    def __init__(self, rules: Rules, stops: Collection[str]) -> None:
        self._eye = Eye(rules)
        self._decoder = StreamDecoder(rules.tokenizer)
        self._stop = StopText(stops)
        self.whole = ""

    @property
    def is_stopped(self) -> bool:
        return self._stop.found is not None

    def push(self, token: int) -> str:
        return self._add(self._stop.push(self._decoder.push(token)) if self._eye.sees(token) else "")

    def flush(self) -> str:
        """The end of the reply has come: what was held back, unless a stop string was found."""
        return self._add(self._stop.push(self._decoder.flush()) + self._stop.flush())

    def _add(self, piece: str) -> str:
        self.whole += piece
        return piece


class Reply:
    """Takes sampled tokens, puts a tool's forced ones in their place, and knows when it ends."""

    def __init__(self, request: Request, rules: Rules, context: int, *, with_text: bool = False) -> None:
        self.request, self.rules = request, rules
        self.room = request.most_tokens(context) - len(request.prompt)
        self.stop = rules.stop if request.stop is None else request.stop
        self.ids: list[int] = []
        self.mask: list[int] = []
        self.finish: Finish | None = None
        self.stop_id: int | None = None
        self.logprobs: list[TokenLogprob] = []  # of `ids`, if asked for
        self.prompt_logprobs: list[TokenLogprob] = []  # from `request.score_from` on
        self.cached_tokens = 0
        self.text = VisibleText(rules, request.stop_strings) if with_text or request.stop_strings else None
        self.piece = ""  # of the text, that the last step brought
        self._forced: deque[int] = deque()
        self._call: list[int] | None = None  # tokens since python_start, while inside

    @property
    def usage(self) -> Usage:
        return Usage(len(self.request.prompt), len(self.ids), self.cached_tokens)

    def take(self, sampled: int) -> int | None:
        """One step; returns the token that the reply got, or None if it stopped."""
        forced = bool(self._forced)
        token = self._forced.popleft() if forced else sampled
        self.piece = ""
        if not forced and token in self.stop:
            self.stop_id = token
            self.end("stop")
            return None
        self.ids.append(token)
        self.mask.append(0 if forced else 1)
        if not forced:
            self._follow_call(token)
        if self.text is not None:
            self.piece = self.text.push(token)
        if self.text is not None and self.text.is_stopped:
            self.end("stop")
        elif len(self.ids) == self.room:
            self.end("length")
        return token

    def end(self, finish: Finish) -> None:
        self.finish = finish
        if self.text is not None:
            self.piece += self.text.flush()

    def completion(self) -> Completion:
        assert self.finish is not None
        tokenizer = self.rules.tokenizer
        text = self.text.whole if self.text else tokenizer.decode(self.rules.visible(self.ids))
        return Completion(self.ids, self.mask, text, self.finish, self.stop_id)

    def _follow_call(self, token: int) -> None:
        markers = self.rules.markers
        if token == markers.python_start:
            self._call = []
        elif token == markers.python_end and self._call is not None:
            self._forced.extend(self.rules.answer(self._call))
            self._call = None
        elif self._call is not None:
            self._call.append(token)
