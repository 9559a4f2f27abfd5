"""From prompts to replies and scores, offline: thin forms of the running batch.

What it is: `generate_batch` and `stream` for replies, `score` for log-probabilities of given continuations,
all by `batch.Batch`, which a server drives through `scheduler.py`. What it is not: a queue, or a
tokenizer; it handles ids, and decodes only what a tool, a stop string or `Completion.text` needs.

A row depends on its prompt, its seed and the model alone, not on who shares the batch, up to the last
bits of floating-point sums. Run: `pytest tests/test_engine.py`, `python -m scripts.chat_cli`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from nanochat.batch import CHUNK, Batch
from nanochat.common import UsageError
from nanochat.decoder import Decoder
from nanochat.kv_cache import KVCache
from nanochat.kv_slots import KVSlots
from nanochat.reply import Reply, Rules, Tool
from nanochat.request import GREEDY, Completion, Request, Sampling
from nanochat.tokenizer import Tokenizer

if TYPE_CHECKING:
    from nanochat.gpt import GPT

OFFLINE_CHUNK = 2048  # prompt tokens a step where nobody waits for the next one: weights are read less often

__all__ = ["Completion", "Engine", "KVCache", "Tool", "in_compute_dtype"]


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


class Engine:
    """Generates with a model's weights as they are now.

    `tool` answers what stands between python_start and python_end, or None.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, tool: Tool | None = None) -> None:
        self.model, self.decoder = model, Decoder(model)
        self.tokenizer = tokenizer
        self.config = model.config
        self.rules = Rules(tokenizer, tool)
        self._spare: KVSlots | None = None

    def batch(self, rows: int, columns: int | None = None, *, remember: bool = False) -> Batch:
        """An empty batch of at most `rows` requests, each of at most `columns` tokens (None: the context)."""
        slots = self.decoder.slots(rows, columns or self.config.context)
        return Batch(self.decoder, slots, remember=remember)

    def reply(self, request: Request, name: str = "the prompt", *, with_text: bool = False) -> Reply:
        """A request's reply, yet to be written. UsageError if its prompt does not suit the model."""
        request.check(self.config.context, self.config.vocab_size, name)
        return Reply(request, self.rules, self.config.context, with_text=with_text)

    def visible(self, ids: Iterable[int]) -> Iterator[int]:
        """The ids that a reader sees: no special tokens, nothing between the markers of a tool."""
        return self.rules.visible(ids)

    def run(self, replies: Sequence[Reply], chunk: int = OFFLINE_CHUNK) -> Iterator[Reply]:
        """Write all replies, together; yields each as it comes on, once a step."""
        columns = max(reply.request.most_tokens(self.config.context) for reply in replies)
        slots = self._take_slots(len(replies), columns)
        batch = Batch(self.decoder, slots, chunk=chunk)
        for reply in replies:
            batch.join(reply)
        try:
            while batch.seats:
                yield from batch.step()
        finally:
            if self.decoder.device.type == "cpu":
                self._spare = slots

    def _take_slots(self, rows: int, columns: int) -> KVSlots:
        """Those of the last run if they are large enough: a CPU's system is slow to give pages, and torch,
        which keeps a GPU's memory for the next tensor, keeps none of the CPU's."""
        slots, self._spare = self._spare, None
        if slots is None or slots.rows < rows or slots.columns < columns:
            slots = self.decoder.slots(rows, columns)
        return slots

    def score(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Log-probability in nats of each prompt's options (lists of at least one id), given the prompt.

        A prompt is read once however many options it has. ValueError if one does not fit the context.
        """
        if any(not option for group in options for option in group):
            raise UsageError("an option has no tokens; score options of at least one token each")
        replies = [
            self.reply(Request([*prompt, *option], 0, GREEDY, score_from=len(prompt)), f"prompt {i}")
            for i, (prompt, group) in enumerate(zip(prompts, options, strict=True))
            for option in group
        ]
        if replies:
            list(self.run(replies, CHUNK))  # all of a step's scored tokens have logits: memory counts
        totals = (sum(token.logprob for token in reply.prompt_logprobs) for reply in replies)
        return [[next(totals) for _ in group] for group in options]

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
        if num_samples < 1:
            raise UsageError(f"num_samples {num_samples} must be at least 1")
        sampling, ends = Sampling(temperature, top_k, top_p), None if stop is None else frozenset(stop)
        rows = [(i, prompt) for i, prompt in enumerate(prompts) for _ in range(num_samples)]
        seeds = _row_seeds(seed, len(prompts), num_samples)
        replies = [
            self.reply(Request(prompt, max_tokens, sampling, *own, stop=ends), f"prompt {i}")
            for (i, prompt), own in zip(rows, seeds, strict=True)
        ]
        for _ in self.run(replies):
            pass
        return [reply.completion() for reply in replies]

    def stream(self, request: Request) -> Iterator[int]:
        """The ids of one reply as they come, forced ones too. UsageError if it does not suit the model."""
        return self._ids(self.reply(request))

    def _ids(self, reply: Reply) -> Iterator[int]:
        for i, _ in enumerate(self.run([reply])):
            yield from reply.ids[i:]


def _row_seeds(seed: int | Sequence[int], prompts: int, samples: int) -> list[tuple[int, int]]:
    if isinstance(seed, int):
        return [(seed, row) for row in range(prompts * samples)]
    if len(seed) != prompts:
        raise UsageError(f"{len(seed)} seeds for {prompts} prompts; give one seed, or one for each prompt")
    return [(one, j) for one in seed for j in range(samples)]
