"""How likely a model finds parts of token rows, where rows that begin alike are read once up to the fork.

What it is: `Spans` (the rows of one question and what counts in each) and the scorer of our own models: the
shared beginning goes into a key/value cache, which is then repeated for the options; logits are made only
where a target is. What it is not: what the rows mean (`core_eval.py`), or models of other makes
(`hf_model.py`). Rows may be longer than the model's context: `GPT.reach`.

Legend: B rows, T tokens, N scored tokens, C width, V vocabulary. Run: `pytest tests/test_core_eval.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.engine import in_compute_dtype
from nanochat.gpt import GPT
from nanochat.kv_cache import KVCache, right_pad

LOGITS = 1 << 25  # logits that are held at a time


@dataclass(frozen=True)
class Spans:
    """Rows of token ids, one an option; what counts in each starts at `starts`, 1 at least."""

    rows: Sequence[list[int]]
    starts: Sequence[int]

    @cached_property
    def fork(self) -> int:
        """Tokens to read once for all rows; the token that predicts a first target is not among them."""
        if len(self.rows) == 1:
            return 0
        return min(common_length(self.rows), min(self.starts) - 1)


class SpanScore(NamedTuple):
    """Log-probability in nats of a row's targets, how many they are, and whether each is the likeliest."""

    log_prob: float
    tokens: int
    is_greedy: bool

    @property
    def mean(self) -> float:
        return self.log_prob / self.tokens


class Scorer(Protocol):
    """Whoever gives each row of each question its score."""

    tokens_fed: int  # so far, padding included
    crop_to: int | None  # rows must not be longer

    def score(self, group: Sequence[Spans], /) -> list[list[SpanScore]]: ...


def common_length(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(rows), max(rows)  # in the order of lists, all others lie between
    pairs = enumerate(zip(first, last, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))


class Likelihood:
    """The scorer of a `GPT`. Rows are never cropped."""

    crop_to: int | None = None

    def __init__(self, model: GPT) -> None:
        self.model = in_compute_dtype(model)
        self.device = model.embed.weight.device
        self.tokens_fed = 0

    @torch.no_grad()
    def score(self, group: Sequence[Spans]) -> list[list[SpanScore]]:
        """Scores of each question's rows. Questions with a fork are batched apart from those without."""
        assert len({spans.fork > 0 for spans in group}) == 1
        cache = self._read_shared(group) if group[0].fork else None
        rests = [row[spans.fork : -1] for spans in group for row in spans.rows]
        hidden = self._hidden(rests, cache)
        starts = [start - spans.fork - 1 for spans in group for start in spans.starts]
        targets = [
            row[start:] for spans in group for row, start in zip(spans.rows, spans.starts, strict=True)
        ]
        scores = iter(self._score(hidden, starts, targets))
        return [[next(scores) for _ in spans.rows] for spans in group]

    def _read_shared(self, group: Sequence[Spans]) -> KVCache:
        """A cache with a row for each option that holds what the options of its question share."""
        rest = max(len(row) - spans.fork for spans in group for row in spans.rows)
        room = max(spans.fork for spans in group) + rest
        self.model.reach(room)
        config, dtype = self.model.config, self.model.compute_dtype
        cache = KVCache(config, len(group), room, dtype, self.device, reach=room)
        self._hidden([spans.rows[0][: spans.fork] for spans in group], cache)
        cache.select([i for i, spans in enumerate(group) for _ in spans.rows])
        return cache

    def _hidden(self, rows: Sequence[Sequence[int]], cache: KVCache | None) -> Tensor:
        """(B, T, C) of right-padded rows."""
        ids = right_pad(rows, self.device)
        self.tokens_fed += ids.numel()
        if cache is None:
            self.model.reach(ids.size(1))
            return self.model.hidden(ids)
        counts = [len(row) for row in rows]
        cache.expect(counts)
        hidden = self.model.hidden(ids, cache)
        cache.advance(counts)
        return hidden

    def _score(
        self, hidden: Tensor, starts: Sequence[int], targets: Sequence[Sequence[int]]
    ) -> list[SpanScore]:
        """Scores of targets that (B, T, C) hidden states predict from each row's start on."""
        owner = [i for i, row in enumerate(targets) for _ in row]
        places = [start + j for start, row in zip(starts, targets, strict=True) for j in range(len(row))]
        wanted = torch.tensor([token for row in targets for token in row], device=self.device)
        picked = hidden[owner, places]  # (N, C)
        log_probs, hits = [], []
        rows = max(1, LOGITS // self.model.config.vocab_size)
        for states, tokens in zip(picked.split(rows), wanted.split(rows), strict=True):
            logits = self.model.logits(states)
            log_probs.append(-F.cross_entropy(logits, tokens, reduction="none"))
            hits.append(logits.argmax(dim=-1) == tokens)
        return gathered(targets, torch.cat(log_probs), torch.cat(hits))


def gathered(targets: Sequence[Sequence[int]], log_probs: Tensor, hits: Tensor) -> list[SpanScore]:
    """One score a row from (N,) log-probabilities and (N,) hits of all rows' targets, in order."""
    counts = [len(row) for row in targets]
    sums = [part.sum().item() for part in log_probs.cpu().double().split(counts)]
    greedy = [bool(part.all()) for part in hits.cpu().split(counts)]
    return list(map(SpanScore, sums, counts, greedy))
