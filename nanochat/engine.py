"""From prompts to replies: a key/value cache, sampling, and the loop that joins them.

What it is: batched generation for a trained `GPT`. Prompts of different lengths are prefilled together
(right-padded, which is exact under causal attention), rows that finish leave the batch, a call of the
calculator is answered while the row is being written, and log-probabilities of given continuations come
from the same cache. What it is not: a server (no queue, nothing joins a running batch) or a tokenizer;
it handles ids, and decodes only what a tool or `Completion.text` needs.

A row depends on its prompt, its seed and the model alone, not on who shares the batch, up to the last
bits of floating-point sums. Legend: B rows, T new tokens, S stored tokens, C width, V vocabulary,
KVH key/value heads, D head dim. Run: `pytest tests/test_engine.py`, `python -m scripts.chat_cli`.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nanochat.common import UsageError
from nanochat.kv_cache import GROWTH_TOKENS, KVCache, right_pad
from nanochat.sampling import Sampling, sample, uniforms
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

if TYPE_CHECKING:
    from nanochat.gpt import GPT

Tool = Callable[[str], "str | None"]


# ----------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Completion:
    """One reply. `ids` are without the prompt and without the stop token, which `stop_id` names."""

    ids: list[int]
    mask: list[int]  # 1 = sampled by the model, 0 = forced (a tool's answer)
    text: str  # what a reader sees: without tool calls, their answers and other special tokens
    finish: Literal["stop", "length"]
    stop_id: int | None = None


@dataclass(frozen=True)
class _Markers:
    """Ids of the special tokens that steer a row."""

    python_start: int
    python_end: int
    output_start: int
    output_end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> _Markers:
        return cls(*(tokenizer.special(name) for name in cls.__dataclass_fields__))


@dataclass
class _Row:
    """A reply in the making: takes sampled tokens, puts a tool's forced ones in their place."""

    room: int  # tokens that it may still become, forced ones included
    stop: Collection[int]
    answer: Callable[[list[int]], list[int]]  # ids of a tool call -> ids to force
    markers: _Markers
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    stop_id: int | None = None
    _forced: deque[int] = field(default_factory=deque)
    _call: list[int] | None = None  # tokens since python_start, while inside

    def take(self, sampled: int) -> int | None:
        """One step; returns the token that the row got, or None if it stopped."""
        forced = bool(self._forced)
        token = self._forced.popleft() if forced else sampled
        if not forced and token in self.stop:
            self.finish, self.stop_id = "stop", token
            return None
        self.ids.append(token)
        self.mask.append(0 if forced else 1)
        if not forced:
            self._follow_call(token)
        if len(self.ids) == self.room:
            self.finish = "length"
        return token

    def _follow_call(self, token: int) -> None:
        if token == self.markers.python_start:
            self._call = []
        elif token == self.markers.python_end and self._call is not None:
            self._forced.extend(self.answer(self._call))
            self._call = None
        elif self._call is not None:
            self._call.append(token)


def _survivors(alive: Sequence[bool]) -> list[int]:
    """Which row goes to each place of the smaller batch: the last rows fill the gaps, few rows move."""
    n = sum(alive)
    tail = (i for i in range(n, len(alive)) if alive[i])
    return [i if alive[i] else next(tail) for i in range(n)]


def in_compute_dtype(model: GPT) -> GPT:
    """The model itself, or a copy whose weights are in its compute precision already.

    Casting float32 weights at each step costs a small batch most of its speed (three times the time at
    d12 on a CPU). The original is left alone: it may be in the middle of its training.
    """
    if all(p.dtype == model.compute_dtype for p in model.parameters()):
        return model
    cast = {
        id(p): nn.Parameter(p.detach().to(model.compute_dtype), requires_grad=False)
        for p in model.parameters()
    }
    return copy.deepcopy(model, cast)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- the engine


class Engine:
    """Generates with a model. `tool` answers what stands between python_start and python_end, or None.

    The weights are those at the time of construction where the compute precision is not float32.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, tool: Tool | None = None) -> None:
        self.model = in_compute_dtype(model)
        self.tokenizer = tokenizer
        self.tool = tool
        self.config = model.config
        self.device = next(model.parameters()).device
        self._markers = _Markers.of(tokenizer)
        self._specials = frozenset(tokenizer.special(name) for name in SPECIAL_TOKENS)
        self._default_stop = frozenset((tokenizer.special("assistant_end"), tokenizer.bos_id))

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[KVCache, Tensor]:
        """A cache that holds the prompts, and the (B, V) logits of what follows each."""
        for i, prompt in enumerate(prompts):
            self._check_prompt(i, prompt)
        capacity = min(self.config.context, max(map(len, prompts)) + GROWTH_TOKENS)
        cache = KVCache(self.config, len(prompts), capacity, self.model.compute_dtype, self.device)
        hidden = self._append(prompts, cache, lambda x: cache.gather_last(x)[:, 0])
        return cache, self.model.logits(hidden)

    @torch.no_grad()
    def step(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """One more token for each row -> (B, V) logits of the next."""
        hidden = self.model.hidden(torch.tensor(tokens, device=self.device)[:, None], cache)
        cache.advance([1] * len(tokens))
        return self.model.logits(hidden[:, -1])

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Log-probability in nats of each prompt's options (lists of at least one id), given the prompt.

        A prompt is read once however many options it has. ValueError if one does not fit the context.
        """
        if any(not option for group in options for option in group):
            raise UsageError("an option has no tokens; score options of at least one token each")
        cache, logits = self.prefill(prompts)
        owner = [i for i, group in enumerate(options) for _ in group]
        flat = [list(option) for group in options for option in group]
        first = torch.tensor([option[0] for option in flat], device=self.device)
        totals = logits.log_softmax(dim=-1)[owner, first]
        longer = [i for i, option in enumerate(flat) if len(option) > 1]
        if longer:
            cache.select([owner[i] for i in longer])
            totals[longer] += self._score_rest([flat[i] for i in longer], cache)
        results = iter(totals.tolist())
        return [[next(results) for _ in group] for group in options]

    def _score_rest(self, options: list[list[int]], cache: KVCache) -> Tensor:
        """(B,) sums over all tokens but the first, whose distribution the cache's owner has already."""
        real = right_pad([[1] * (len(option) - 1) for option in options], self.device).bool()
        targets = right_pad([option[1:] for option in options], self.device)
        hidden = self._append([option[:-1] for option in options], cache, lambda x: x[real])  # (N, C)
        log_probs = self.model.logits(hidden).log_softmax(dim=-1).gather(1, targets[real][:, None])[:, 0]
        owner = real.nonzero()[:, 0]
        return torch.zeros(len(options), device=self.device).index_add_(0, owner, log_probs)

    def _append(
        self, rows: Sequence[Sequence[int]], cache: KVCache, pick: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Feed rows of different lengths; `pick` takes what is needed of the (B, T, C) hidden states."""
        counts = [len(row) for row in rows]
        cache.expect(counts)
        picked = pick(self.model.hidden(right_pad(rows, self.device), cache))
        cache.advance(counts)
        return picked

    def generate_batch(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        stop: Collection[int] | None = None,
        num_samples: int = 1,
    ) -> list[Completion]:
        """`num_samples` replies to each prompt, those of a prompt side by side.

        Reply and prompt together fill at most the context; a reply cut by it or by `max_tokens` finishes
        with "length". Row i draws from generator (seed, i); with a seed for each prompt its sample j draws
        from (its seed, j), as if it were alone. `stop` defaults to assistant_end and bos.
        """
        if not prompts:
            return []
        self._check_counts(max_tokens=max_tokens, num_samples=num_samples)
        seeds = _row_seeds(seed, len(prompts), num_samples)
        rows = self._rows([p for p in prompts for _ in range(num_samples)], max_tokens, stop)
        for _ in self._generate(prompts, rows, Sampling(temperature, top_k, top_p), seeds):
            pass
        return [self._completion(row) for row in rows]

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Collection[int] | None = None,
    ) -> Iterator[int]:
        """The ids of one reply as they come: the same as `generate_batch([prompt], ...)` collects."""
        self._check_counts(max_tokens=max_tokens)
        rows = self._rows([prompt], max_tokens, stop)
        sampling = Sampling(temperature, top_k, top_p)
        return self._generate([prompt], rows, sampling, _row_seeds(seed, 1, 1))

    def visible(self, ids: Iterable[int]) -> Iterator[int]:
        """The ids that a reader sees: no special tokens, nothing between the markers of a tool."""
        ends = {
            self._markers.python_start: self._markers.python_end,
            self._markers.output_start: self._markers.output_end,
        }
        until = None
        for token in ids:
            if until is not None:
                until = None if token == until else until
            elif token in ends:
                until = ends[token]
            elif token not in self._specials:
                yield token

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        rows: list[_Row],
        sampling: Sampling,
        seeds: list[tuple[int, int]],
    ) -> Iterator[int]:
        """Run all rows to their ends; yields each token as its row takes it."""
        cache, logits = self.prefill(prompts)
        each = len(rows) // len(prompts)
        if each > 1:
            cache.select([i for i in range(len(prompts)) for _ in range(each)])
            logits = logits.repeat_interleave(each, dim=0)
        draws = uniforms(seeds, max(row.room for row in rows), self.device)
        live = list(range(len(rows)))
        for turn in range(draws.size(1)):
            tokens = sample(logits, draws[live, turn], sampling).tolist()
            for i, token in zip(live, tokens, strict=True):
                taken = rows[i].take(token)
                if taken is not None:
                    yield taken
            keep = _survivors([rows[i].finish is None for i in live])
            if not keep:
                return
            if len(keep) < len(live):
                cache.select(keep)
                live = [live[i] for i in keep]
            logits = self.step([rows[i].ids[-1] for i in live], cache)

    def _rows(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Collection[int] | None
    ) -> list[_Row]:
        ends = self._default_stop if stop is None else frozenset(stop)
        rooms = (min(max_tokens, self.config.context - len(prompt)) for prompt in prompts)
        return [_Row(room, ends, self._answer, self._markers) for room in rooms]

    def _answer(self, call: list[int]) -> list[int]:
        """Tokens to force after a tool call: its result between the output markers, or nothing."""
        result = None if self.tool is None else self.tool(self.tokenizer.decode(call))
        if result is None:
            return []
        return [self._markers.output_start, *self.tokenizer.encode(result), self._markers.output_end]

    def _completion(self, row: _Row) -> Completion:
        assert row.finish is not None
        text = self.tokenizer.decode(self.visible(row.ids))
        return Completion(row.ids, row.mask, text, row.finish, row.stop_id)

    def _check_prompt(self, i: int, prompt: Sequence[int]) -> None:
        if not prompt:
            raise UsageError(f"prompt {i} is empty; a prompt starts with the id of <|bos|>")
        if len(prompt) >= self.config.context:
            raise UsageError(
                f"prompt {i} has {len(prompt)} tokens and leaves no room for a reply in the model's context "
                f"of {self.config.context}; shorten it"
            )
        if min(prompt) < 0 or max(prompt) >= self.config.vocab_size:
            raise UsageError(f"prompt {i} has ids outside 0 to {self.config.vocab_size - 1}")

    def _check_counts(self, **counts: int) -> None:
        for name, count in counts.items():
            if count < 1:
                raise UsageError(f"{name} {count} must be at least 1")


def _row_seeds(seed: int | Sequence[int], prompts: int, samples: int) -> list[tuple[int, int]]:
    if isinstance(seed, int):
        seeds = [(seed, row) for row in range(prompts * samples)]
    elif len(seed) == prompts:
        seeds = [(one, j) for one in seed for j in range(samples)]
    else:
        raise UsageError(f"{len(seed)} seeds for {prompts} prompts; give one seed, or one for each prompt")
    if any(one < 0 for one, _ in seeds):
        raise UsageError(f"seed {min(seeds)[0]} is negative; seeds are 0 or more")
    return seeds
