"""What is asked of the engine, and what it answers: plain values, importable without torch.

What it is: `Request` with its `Sampling`, and `Completion`, `TokenLogprob`, `Usage` on the way back. What
it is not: text (prompts are ids; `tokenizer.py`) or the work itself (`batch.py`).
Run: `python -c "from nanochat.request import Request; print(Request((0,), max_tokens=8))"`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from nanochat.common import UsageError

Finish = Literal["stop", "length", "cancelled"]
MAX_LOGPROBS = 20  # alternatives a token


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits. Temperature 0 is greedy; then the rest has no effect."""

    temperature: float = 1.0
    top_k: int | None = None  # the k most likely; None or 0 = all
    top_p: float = 1.0  # of these, the fewest that together reach this probability
    min_p: float = 0.0  # of these, the ones at least this share as likely as the likeliest

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature {self.temperature} must be 0 (greedy) or more, and finite")
        if self.top_k is not None and self.top_k < 0:
            raise UsageError(f"top_k {self.top_k} must be at least 1, or 0 to switch it off")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p {self.top_p} must be above 0 and at most 1 (1 switches it off)")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p {self.min_p} must be from 0 (switches it off) to 1")


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class Request:
    """One reply to one prompt. It draws from generator (seed, sample), whoever shares the batch.

    `stop` holds ids, None = the end of an assistant's turn and bos; a reply also ends where its visible text
    comes to one of `stop_strings`, which is cut off. `logprobs` N: each token's log-probability with the N
    likeliest beside it. With `score_from` N the prompt's own tokens from the N-th on are scored as well;
    only then `max_tokens` may be 0.
    """

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    sample: int = 0
    stop: frozenset[int] | None = None
    stop_strings: tuple[str, ...] = ()
    logprobs: int | None = None
    score_from: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < (self.score_from is None):
            raise UsageError(f"max_tokens {self.max_tokens} must be at least 1")
        if self.seed < 0 or self.sample < 0:
            raise UsageError(f"seed {min(self.seed, self.sample)} is negative; seeds are 0 or more")
        if not all(self.stop_strings):
            raise UsageError("a stop string is empty; leave it out")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise UsageError(f"logprobs {self.logprobs} must be from 0 to {MAX_LOGPROBS}")
        if self.score_from is not None and not 1 <= self.score_from <= len(self.prompt):
            raise UsageError(
                f"score_from {self.score_from} must be from 1 (nothing predicts the first token) to the "
                f"prompt's {len(self.prompt)} tokens"
            )

    def check(self, context: int, vocab_size: int, name: str = "the prompt") -> None:
        """UsageError if the prompt does not suit a model of this context and vocabulary."""
        if not self.prompt:
            raise UsageError(f"{name} is empty; a prompt starts with the id of <|bos|>")
        if len(self.prompt) + (self.max_tokens > 0) > context:
            raise UsageError(
                f"{name} has {len(self.prompt)} tokens and leaves no room for a reply in the model's context "
                f"of {context}; shorten it"
            )
        if min(self.prompt) < 0 or max(self.prompt) >= vocab_size:
            raise UsageError(f"{name} has ids outside 0 to {vocab_size - 1}")

    def most_tokens(self, context: int) -> int:
        """Prompt and reply together at their longest."""
        return min(context, len(self.prompt) + self.max_tokens)


class TokenLogprob(NamedTuple):
    """A token's log-probability in nats under the model (temperature 1, nothing cut), and the likeliest."""

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Usage:
    """Tokens of a request; `cached_tokens` of the prompt were in the cache already."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Completion:
    """One reply. `ids` are without the prompt and without the stop token, which `stop_id` names."""

    ids: list[int]
    mask: list[int]  # 1 = sampled by the model, 0 = forced (a tool's answer)
    text: str  # what a reader sees: without tool calls, their answers and other special tokens
    finish: Finish
    stop_id: int | None = None
