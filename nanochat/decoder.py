"""The model as the engine runs it: the same function as `gpt.GPT`, laid out for short steps.

What it is: one pass over the new tokens of many rows laid end to end, prompts and single tokens alike, so
that nothing is padded and weights are read once. At construction weights are cast, query, key and value
fused, rotary pairs put side by side (a product of complex numbers then rotates them; queries and keys
move alike, so their products stay), embeddings normed, and on a CPU matrices are laid out anew. What it is
not: trainable, or the definition of the model: `tests/test_decoder.py` compares it with `GPT` itself.

Legend: N new tokens of all rows, C width, H query heads, KVH key/value heads, D head dim, S stored keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.decoder_ops import Norm, Product, in_parts
from nanochat.gpt import GATE_CHANNELS, QK_SCALE, SMEAR_CHANNELS
from nanochat.kv_slots import KVSlots
from nanochat.probe import bfloat16_gain

if TYPE_CHECKING:
    from nanochat.gpt import GPT, Block


@dataclass(frozen=True)
class Span:
    """New tokens of one row, to be stored from column `start` on; `before` is the id in the column before."""

    row: int
    start: int
    ids: Sequence[int]
    before: int = -1

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


class _Layer:
    """The products of a block."""

    def __init__(
        self, block: Block, heads: int, cast: Callable[[Tensor], Tensor], product: Callable[[Tensor], Product]
    ) -> None:
        attn, mlp = block.attn, block.mlp
        head_dim = attn.config.head_dim
        q, k = (_side_by_side(cast(w.weight), head_dim) for w in (attn.q, attn.k))
        self.qkv = product(torch.cat((q, k, cast(attn.v.weight))))
        self.o, self.up, self.down = (product(cast(w.weight)) for w in (attn.o, mlp.up, mlp.down))
        self.gate = None if mlp.gate is None else product(cast(mlp.gate.weight))
        self.value_gate = None if attn.gate is None else cast(attn.gate.weight)
        self.window = attn.window


def _side_by_side(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a (heads * D, C) matrix so that features i and i + D/2 of a head become neighbours."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


class Decoder:
    """Runs a model's weights as they were at construction."""

    def __init__(self, model: GPT) -> None:
        config = self.config = model.config
        self.dtype, self.device = model.compute_dtype, model.embed.weight.device
        modern = config.arch == "modern"
        # On some CPUs bfloat16 products are slower than float32's: prompts are read in float32 there.
        is_half = self.dtype == torch.bfloat16 and self.device.type == "cpu"
        self.widens = is_half and bfloat16_gain() < 1
        with torch.inference_mode():
            self.norm, self.head_norm = (Norm(n, self.device) for n in (config.width, config.head_dim))
            self.embedding = self.norm(self._cast(model.embed.weight))
            product = functools.partial(Product, widens=self.widens)
            self.layers = [_Layer(block, config.heads, self._cast, product) for block in model.blocks]  # type: ignore[arg-type]
            self.head = product(self._cast(model.head_weight).contiguous())
            self.turns = torch.complex(model.cos, -model.sin)  # (context, D/2), by an angle of -theta
            if modern:
                self.values = {int(i): self._cast(t.weight) for i, t in model.value_embeds.items()}  # type: ignore[arg-type]
                self.residual, self.input, self.smear, self.backout = (
                    self._cast(p).tolist()
                    for p in (
                        model.residual_lambdas, model.input_lambdas, model.smear_lambda, model.backout_lambda
                    )
                )  # fmt: skip
                self.smear_gate = self._cast(model.smear_gate.weight)
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        # Queries and keys have length 1 here, not the root of D as in the model.
        scale = (QK_SCALE**2 if modern else 1) * config.head_dim**0.5
        self.attending = {"scale": scale, "enable_gqa": config.heads != config.kv_heads}

    def _cast(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self.dtype)

    def slots(self, rows: int, columns: int) -> KVSlots:
        return KVSlots(self.config, rows, columns, self.dtype, self.device)

    def scores(self, hidden: Tensor) -> Tensor:
        """(N, C) hidden states -> float32 (N, V) logits before the soft cap, which keeps their order."""
        return self.head(hidden).float()

    def cap(self, scores: Tensor) -> Tensor:
        """Scores, or some of them -> logits."""
        cap = self.config.softcap
        return scores.div(cap).tanh_().mul_(cap) if cap > 0 else scores

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, C) hidden states -> float32 (N, V) logits."""
        return self.cap(self.scores(hidden))

    def hidden(self, spans: Sequence[Span], slots: KVSlots) -> Tensor:
        """Store the spans' keys and values -> (N, C) final normed hidden states, one span after the other."""
        step = _Step(spans, slots, self)
        x = torch.embedding(self.embedding, step.ids)
        if self.config.arch == "classic":
            for i, layer in enumerate(self.layers):
                x = self._block(i, layer, x, step, None)
            return self.norm(x)
        x = first = midway = self._smeared(x, spans)
        halfway = min(self.config.depth // 2, self.config.depth - 2)
        for i, layer in enumerate(self.layers):
            x = x * self.residual[i] + first * self.input[i]
            ve = torch.embedding(self.values[i], step.ids) if i in self.values else None
            x = self._block(i, layer, x, step, ve)
            if i == halfway:
                midway = x
        return self.norm(x - midway * self.backout[0])

    def _smeared(self, x: Tensor, spans: Sequence[Span]) -> Tensor:
        """Add to each embedding a gated share of the one before it."""
        ids = [i for span in spans for i in (max(span.before, 0), *span.ids[:-1])]
        previous = torch.embedding(self.embedding, torch.tensor(ids, device=self.device))
        gate = torch.sigmoid(F.linear(x[:, :SMEAR_CHANNELS], self.smear_gate))
        gate[[at for at, span in _offsets(spans) if span.before < 0]] = 0
        return x + self.smear[0] * gate * previous

    def _block(self, i: int, layer: _Layer, x: Tensor, step: _Step, ve: Tensor | None) -> Tensor:
        x = layer.o(self._attention(i, layer, self.norm(x), step, ve), "add", x)
        h = self.norm(x)
        if layer.gate is not None:
            up = layer.up(h, "mul", layer.gate(h, "swish"))
        elif self.config.activation == "relu2":
            up = layer.up(h, "relu")
            for (part,) in in_parts(up):
                part.mul_(part)
        else:
            up = F.gelu(layer.up(h)) if self.config.activation == "gelu" else layer.up(h, "swish")
        return layer.down(up, "add", x)

    def _attention(self, i: int, layer: _Layer, x: Tensor, step: _Step, ve: Tensor | None) -> Tensor:
        n, heads, kv_heads, head_dim = x.size(0), self.heads, self.kv_heads, self.head_dim
        qkv = layer.qkv(x).view(n, -1, head_dim)
        qk = qkv.narrow(1, 0, heads + kv_heads)
        if ve is not None and layer.value_gate is not None:
            gate = 3 * torch.sigmoid(F.linear(x[:, :GATE_CHANNELS], layer.value_gate))
            qkv[:, heads + kv_heads :].add_(gate[..., None] * ve.view(n, kv_heads, head_dim))
        for part, turns in in_parts(qk, step.turns):
            wide = part.float()  # itself in float32
            wide.view(torch.complex64).mul_(turns)
            wide.div_(self.head_norm.length(wide))
            if wide is not part:
                part.copy_(wide)
        step.store(i, qkv.narrow(1, heads, 2 * kv_heads))
        q = qkv.narrow(1, 0, heads)
        if len(step.parts) == 1:
            return self._attend(i, layer.window, step.parts[0], q, step)
        return torch.cat([self._attend(i, layer.window, part, q[part.tokens], step) for part in step.parts])

    def _attend(self, i: int, window: int, part: _Part, q: Tensor, step: _Step) -> Tensor:
        """(N, H, D) queries of a part -> (N, C)."""
        k, v = part.stored(window, step.slots)[i]
        if part.width == 1:
            mask = part.mask(window, q)
            y = F.scaled_dot_product_attention(q.unsqueeze(2), k, v, attn_mask=mask, **self.attending)
            return y.reshape(q.size(0), -1)
        if self.widens:
            q, k, v = q.float(), k.float(), v.float()
        mask = part.mask(window, q)
        q = q.view(part.count, part.width, self.heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, **self.attending)
        return y.transpose(1, 2).reshape(-1, self.heads * self.head_dim).to(self.dtype)


def _offsets(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Each span with the place of its first token among all."""
    found, at = [], 0
    for span in spans:
        found.append((at, span))
        at += len(span.ids)
    return found


class _Part:
    """Queries that attend in one call: equally many of each of some neighbouring rows."""

    def __init__(self, spans: Sequence[Span], first: int) -> None:
        self.count, self.width = len(spans), len(spans[0].ids)
        self.tokens = slice(first, first + self.count * self.width)
        self.rows = slice(spans[0].row, spans[-1].row + 1)
        self.starts = [span.start for span in spans]
        self.least, self.end = min(self.starts), max(self.starts) + self.width
        self._masks: dict[int, Tensor | None] = {}
        self._stored: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def columns(self, window: int) -> slice:
        """All columns that some query sees."""
        return slice(max(0, self.least - window + 1), self.end)

    def stored(self, window: int, slots: KVSlots) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of these columns."""
        if window not in self._stored:
            self._stored[window] = slots.views(self.rows, self.columns(window))
        return self._stored[window]

    def mask(self, window: int, q: Tensor) -> Tensor | None:
        """(B, 1, T, S) to be added to scores: 0 or, where a query must not attend, -inf; None if all columns
        up to a query's own count."""
        if window not in self._masks:
            self._masks[window] = self._mask(window, q)
        return self._masks[window]

    def _mask(self, window: int, q: Tensor) -> Tensor | None:
        columns = self.columns(window)
        is_even = self.least + self.width == self.end
        if is_even and (self.width == 1 or (self.end == self.width <= window)):
            return None
        own = torch.tensor(self.starts, device=q.device)[:, None] + torch.arange(self.width, device=q.device)
        distance = own[..., None] - torch.arange(columns.start, columns.stop, device=q.device)
        hidden = ((distance < 0) | (distance >= window))[:, None]
        return q.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)


class _Step:
    """What all layers share in one pass."""

    def __init__(self, spans: Sequence[Span], slots: KVSlots, decoder: Decoder) -> None:
        self.slots = slots
        device = decoder.device
        self.ids = torch.tensor([i for span in spans for i in span.ids], device=device)
        rows = [span.row for span in spans for _ in span.ids]
        columns = [column for span in spans for column in range(span.start, span.end)]
        self.store = slots.writer(rows, columns)
        one_row = slice(spans[0].start, spans[0].end) if len(spans) == 1 else None
        self.turns = decoder.turns[one_row or torch.tensor(columns, device=device)][:, None]  # (N, 1, D/2)
        self.parts = [_Part([span for _, span in group], group[0][0]) for group in _neighbours(spans)]


def _neighbours(spans: Sequence[Span]) -> list[list[tuple[int, Span]]]:
    """Runs of rows side by side whose spans are single tokens, or equally long and whole prompts so far."""
    numbered = list(enumerate(_offsets(spans)))

    def run(item: tuple[int, tuple[int, Span]]) -> tuple[int, int, int]:
        n, (_, span) = item
        if len(span.ids) == 1 or span.start == 0:
            return len(span.ids), span.row - n, 0
        return len(span.ids), span.row - n, n

    return [[pair for _, pair in group] for _, group in groupby(numbered, run)]
