"""The running batch: requests join and leave between steps and share one pass of the model.

What it is: which row feeds which tokens in a step. A row feeds its prompt in chunks, then one token a step;
all rows' tokens go through the model end to end. What a prompt has in common with the tokens that some row
has stored is copied instead of computed: the earlier turns of a conversation, or the prompt of several
samples. What it is not: a queue or a thread (`scheduler.py`), text or tools (`reply.py`).

Run: `pytest tests/test_batch.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nanochat.decoder import Decoder, Span
from nanochat.kv_slots import KVSlots
from nanochat.reply import Reply
from nanochat.request import Sampling, TokenLogprob
from nanochat.sampling import draws_of, sample

CHUNK = 512  # prompt tokens a step: what others, and a cancellation, wait for at most
WORTH_SHARING = 16  # tokens in common that are worth a copy, or a step's wait for a neighbour to store them


@dataclass(eq=False)
class Seat:
    """A reply's place in the batch. Its row has stored the first `stored` of `tokens`."""

    reply: Reply
    tokens: list[int]
    draws: np.ndarray  # a uniform number for each token that the reply may get
    stored: int = 0

    @property
    def reads(self) -> bool:
        """Whether it is still at its prompt."""
        return self.stored < len(self.reply.request.prompt)

    @property
    def shareable(self) -> int:
        """Tokens that it may take from others: the one behind them is the first whose logits it needs."""
        request = self.reply.request
        return (request.score_from or len(request.prompt)) - 1

    def wanted(self, span: Span) -> range:
        """Positions of a span whose logits count: the last token's, and those that score the prompt."""
        from_ = max(self.shareable, span.start)
        end = min(span.end, len(self.tokens) - (self.reply.room == 0))
        return range(from_, end)


@dataclass
class _Row:
    """What a row of the cache holds, for its seat or left behind by one."""

    tokens: list[int] = field(default_factory=list)
    used: int = 0  # the step that last needed it


class Batch:
    """Rows 0 .. len(seats) - 1 are taken; the others may hold what earlier replies left."""

    def __init__(
        self, decoder: Decoder, slots: KVSlots, *, remember: bool = False, chunk: int = CHUNK
    ) -> None:
        """`remember`: keep what replies leave, for prompts that begin alike. `chunk`: prompt ids a step."""
        self.decoder, self.slots, self.remember, self.chunk = decoder, slots, remember, chunk
        self.seats: list[Seat] = []
        self.steps = 0
        self._rows = [_Row() for _ in range(slots.rows)]

    @property
    def is_full(self) -> bool:
        return len(self.seats) == self.slots.rows

    def join(self, reply: Reply) -> Seat:
        """Take a row. Its prompt is read from the next step on."""
        assert not self.is_full, "join waits for a free row"
        request = reply.request
        row = len(self.seats)
        self._swap(row, self._row_for(request.prompt))
        seat = Seat(reply, list(request.prompt), draws_of(request.seed, request.sample, reply.room))
        self.seats.append(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """Give the row back, at once; the last seat takes it, so that the taken rows stay together."""
        row, last = self.seats.index(seat), len(self.seats) - 1
        if not self.remember:
            self._rows[row].tokens = []
        self.seats[row] = self.seats[last]
        self.seats.pop()
        self._swap(row, last)

    @torch.inference_mode()
    def step(self) -> list[Reply]:
        """One pass of the model. Returns the replies that it brought on; those that ended have left."""
        self.steps += 1
        fed = self._plan()
        if not fed:
            return []
        hidden = self.decoder.hidden([span for _, span in fed], self.slots)
        wanted: list[tuple[Seat, int]] = []  # the position that each row of logits predicts
        places, at = [], 0
        for seat, span in fed:
            for position in seat.wanted(span):
                wanted.append((seat, position + 1))
                places.append(at + position - span.start)
            at += len(span.ids)
            seat.stored = span.end
            self._rows[span.row].tokens.extend(span.ids)
        if wanted:
            scores = self.decoder.scores(hidden if len(places) == at else hidden[places])
            self._score(wanted, scores)
            self._draw(wanted, scores)
        brought_on = [seat for seat, _ in fed if not seat.reads]
        for seat in reversed(brought_on):  # the last first: rows that leave together need not change places
            if seat.reply.room == 0:
                seat.reply.end("length")
            if seat.reply.finish is not None:
                self.leave(seat)
        return [seat.reply for seat in brought_on]

    # ------------------------------------------------------------------ what to feed

    def _plan(self) -> list[tuple[Seat, Span]]:
        """Every row that writes feeds its token; those that still read share the chunk."""
        budget = self.chunk
        fed: list[tuple[Seat, Span]] = []
        readers: list[Seat] = []
        for row, seat in enumerate(self.seats):
            count = 1
            if seat.reads:
                if budget == 0 or (seat.stored == 0 and not self._begin(row, seat, readers)):
                    continue
                count = min(len(seat.tokens) - seat.stored, budget)
                budget -= count
                readers.append(seat)
            ids = seat.tokens[seat.stored : seat.stored + count]
            fed.append(
                (seat, Span(row, seat.stored, ids, seat.tokens[seat.stored - 1] if seat.stored else -1))
            )
            self._rows[row].used = self.steps
        return fed

    def _begin(self, row: int, seat: Seat, readers: Sequence[Seat]) -> bool:
        """Take over what is stored of the prompt; False to wait for a neighbour that reads more of it now."""
        prompt = seat.tokens[: seat.shareable]
        shared, source = common_length(self._rows[row].tokens, prompt), row
        for other, held in enumerate(self._rows):
            if shared == len(prompt):
                break
            if (length := common_length(held.tokens, prompt)) > shared:
                shared, source = length, other
        if any(common_length(one.tokens, prompt) >= shared + WORTH_SHARING for one in readers):
            return False
        if shared < WORTH_SHARING:
            shared = 0
        elif source != row:
            self.slots.copy(source, row, shared)
        self._rows[row].tokens = prompt[:shared]
        seat.stored = seat.reply.cached_tokens = shared
        return True

    # ------------------------------------------------------------------ what comes of it

    def _draw(self, wanted: Sequence[tuple[Seat, int]], scores: Tensor) -> None:
        """Each reply at the end of its tokens takes one more, drawn in its own way."""
        ways: dict[Sampling, list[int]] = {}
        for i, (seat, position) in enumerate(wanted):
            if position == len(seat.tokens):
                ways.setdefault(seat.reply.request.sampling, []).append(i)
        for sampling, rows in ways.items():
            own = scores if len(rows) == len(wanted) else scores[rows]
            seats = [wanted[i][0] for i in rows]
            draws = np.array([seat.draws[len(seat.reply.ids)] for seat in seats])
            uniform = torch.from_numpy(draws).to(own.device)
            sampled = sample(own, uniform, sampling, self.decoder.cap).tolist()
            for i, (seat, token) in enumerate(zip(seats, sampled, strict=True)):
                taken = seat.reply.take(token)
                if taken is not None:
                    seat.tokens.append(taken)
                    if (top := seat.reply.request.logprobs) is not None:
                        seat.reply.logprobs += logprobs(self.decoder.cap(own[i : i + 1]), [taken], top)

    def _score(self, wanted: Sequence[tuple[Seat, int]], scores: Tensor) -> None:
        """Log-probabilities of the prompts' own tokens, where they were asked for."""
        rows: dict[Seat, list[int]] = {}
        for i, (seat, position) in enumerate(wanted):
            if position < len(seat.reply.request.prompt):
                rows.setdefault(seat, []).append(i)
        for seat, own in rows.items():
            ids = [seat.tokens[wanted[i][1]] for i in own]
            logits, top = self.decoder.cap(scores[own]), seat.reply.request.logprobs or 0
            seat.reply.prompt_logprobs += logprobs(logits, ids, top)

    # ------------------------------------------------------------------ rows

    def _row_for(self, prompt: Sequence[int]) -> int:
        """The free row that begins most like the prompt, else the one least recently used."""
        free = range(len(self.seats), self.slots.rows)
        if not self.remember:
            return free[0]
        shared = {row: common_length(self._rows[row].tokens, prompt) for row in free}
        best = max(free, key=shared.__getitem__)
        if shared[best] >= WORTH_SHARING:
            return best
        return min(free, key=lambda row: (bool(self._rows[row].tokens), self._rows[row].used))

    def _swap(self, a: int, b: int) -> None:
        """Two rows change places, with as few copies as what they hold allows."""
        held = len(self._rows[a].tokens), len(self._rows[b].tokens)
        if a == b:
            return
        if all(held):
            self.slots.swap(a, b, max(held))
        elif any(held):
            self.slots.copy(*((a, b) if held[0] else (b, a)), max(held))
        self._rows[a], self._rows[b] = self._rows[b], self._rows[a]


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(a), len(b)))


def logprobs(logits: Tensor, ids: Sequence[int], top: int) -> list[TokenLogprob]:
    """Log-probabilities of `ids` under (N, V) logits, with the `top` likeliest beside each."""
    all_ = logits.log_softmax(dim=-1)
    own = all_.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].tolist()
    best, best_ids = (x.tolist() for x in all_.topk(top))
    pairs = (list(zip(*row, strict=True)) for row in zip(best_ids, best, strict=True))
    return [TokenLogprob(*one) for one in zip(ids, own, pairs, strict=True)]
