"""The transformer: two architectures, one class.

`classic` is the Oct-2025 nanochat model, weight for weight what transformers' NanoChatForCausalLM
runs: RoPE then QK-norm, RMSNorm without gains, squared ReLU, untied head, soft-capped logits.
`modern` adds what later measured better (reference: nanochat's LOG, modded-nanogpt): gated value
embeddings on every other layer, residual and input lambdas, smear, backout, attention windows.
What it is not: options (`config.GPTConfig`), optimizers, sampling (`engine.py`).

Master weights are float32; each product is done in `compute_dtype`.
Legend: B batch, T time, C width, H query heads, KVH key/value heads, D head dim, V vocabulary.
Run: `pytest tests/test_gpt.py`; `python -m scripts.bench step`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.attention import attend
from nanochat.config import GPTConfig
from nanochat.cross_entropy import softcap_cross_entropies, softcap_cross_entropy

if TYPE_CHECKING:
    from nanochat.engine import KVCache

EPSILON = 1e-6  # of every norm
QK_SCALE = 1.2  # sharper attention after QK-norm; modern only
GATE_CHANNELS = 12  # features that drive a value-embedding gate
SMEAR_CHANNELS = 24  # features that drive the smear gate
TIED_STD = 0.004  # small: a token predicts itself by |e|^2; not too small for RMSNorm's epsilon (1e-6)
VOCAB_MULTIPLE = 64  # rows of embeddings and head are padded to it, so that ranks can share them evenly


def norm(x: Tensor) -> Tensor:
    """RMSNorm without a gain over the last dimension."""
    return F.rms_norm(x, (x.size(-1),), eps=EPSILON)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (B, H, T, D) by tables (B or 1, 1, T, D/2), half-split layout, angle -theta."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1).to(x.dtype)


def _table(rows: int, width: int) -> nn.Embedding:
    # Not initialised here: torch's own normal_ would, on the meta device, import all of torch._dynamo (2 s).
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


class Linear(nn.Linear):
    """A bias-free linear layer whose float32 weight is cast to the input's precision."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Grouped-query causal self-attention with QK-norm; values may be mixed with a value embedding."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.window = config.windows[layer]
        kv_width = config.kv_heads * config.head_dim
        self.q = Linear(config.width, config.width)
        self.k = Linear(config.width, kv_width)
        self.v = Linear(config.width, kv_width)
        self.o = Linear(config.width, config.width)
        self.gate = Linear(GATE_CHANNELS, config.kv_heads) if layer in config.value_layers else None

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], ve: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        B, T, _ = x.shape
        D = self.config.head_dim
        q = self.q(x).view(B, T, -1, D)  # (B, T, H, D)
        k = self.k(x).view(B, T, -1, D)  # (B, T, KVH, D)
        v = self.v(x).view(B, T, -1, D)
        if ve is not None and self.gate is not None:
            gate = 3 * torch.sigmoid(self.gate(x[..., :GATE_CHANNELS]))  # (B, T, KVH)
            v = v + gate.unsqueeze(-1) * ve.view(B, T, -1, D)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D)
        q, k = norm(rotate(q, *rotary)), norm(rotate(k, *rotary))
        if self.config.arch == "modern":
            q, k = q * QK_SCALE, k * QK_SCALE
        mask = None
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, KVH, S, D)
            mask = cache.mask(T, self.window)
        y = attend(q, k, v, self.window, mask)
        return self.o(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """up -> activation -> down; `swiglu` adds a gate of the same width."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = Linear(config.width, config.mlp_width)
        self.gate = Linear(config.width, config.mlp_width) if config.activation == "swiglu" else None
        self.down = Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        if self.gate is not None:
            h = F.silu(self.gate(x)) * h
        elif self.activation == "relu2":
            h = F.relu(h).square()
        else:
            h = F.gelu(h) if self.activation == "gelu" else F.silu(h)
        return self.down(h)


class Block(nn.Module):
    """Pre-norm attention and MLP around a residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], ve: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x = x + self.attn(norm(x), rotary, ve, cache)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """A language model. `model(idx)` gives logits; `model.loss_sum(idx, targets)` the training loss."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        rows = -(-config.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        self.embed = _table(rows, config.width)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.depth))
        self.lm_head = None if config.tie_embeddings else Linear(config.width, rows)
        if config.arch == "modern":
            kv_width = config.kv_heads * config.head_dim
            self.value_embeds = nn.ModuleDict({str(i): _table(rows, kv_width) for i in config.value_layers})
            self.residual_lambdas = nn.Parameter(torch.empty(config.depth))
            self.input_lambdas = nn.Parameter(torch.empty(config.depth))
            self.smear_gate = Linear(SMEAR_CHANNELS, 1)
            self.smear_lambda = nn.Parameter(torch.empty(1))
            self.backout_lambda = nn.Parameter(torch.empty(1))
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(config.context, config.head_dim // 2), persistent=False)

    # ------------------------------------------------------------------ initialisation

    @torch.no_grad()
    def init_weights(self, seed: int) -> GPT:
        """Set every parameter and buffer (the model may come from the meta device). Returns itself."""
        device = self.embed.weight.device
        rng = torch.Generator(device=device).manual_seed(seed)
        if self.config.arch == "modern":
            self._init_modern(rng)
        else:
            self._init_classic(rng)
        self._init_rotary(device)
        return self

    def _init_classic(self, rng: torch.Generator) -> None:
        self.embed.weight.normal_(0, TIED_STD if self.config.tie_embeddings else 1, generator=rng)
        for module in self.blocks.modules():
            if isinstance(module, Linear):
                n_out, n_in = module.weight.shape
                module.weight.normal_(0, min(1, math.sqrt(n_out / n_in)) / math.sqrt(n_in), generator=rng)
        self._zero_outputs()
        if self.lm_head is not None:
            self.lm_head.weight.zero_()

    def _init_modern(self, rng: torch.Generator) -> None:
        bound = math.sqrt(3 / self.config.width)  # uniform with standard deviation 1/sqrt(width)
        self.embed.weight.normal_(0, TIED_STD if self.config.tie_embeddings else 0.8, generator=rng)
        for block in self.blocks:
            assert isinstance(block, Block)
            for layer in (block.attn.q, block.attn.k, block.attn.v):
                layer.weight.uniform_(-bound, bound, generator=rng)
            for up in filter(None, (block.mlp.up, block.mlp.gate)):
                up.weight.uniform_(-0.4 * bound, 0.4 * bound, generator=rng)
            if block.attn.gate is not None:
                block.attn.gate.weight.uniform_(0, 0.02, generator=rng)
        self._zero_outputs()
        if self.lm_head is not None:
            self.lm_head.weight.normal_(0, 0.001, generator=rng)
        for table in self.value_embeds.values():
            assert isinstance(table, nn.Embedding)
            table.weight.uniform_(-bound, bound, generator=rng)
        depth = torch.linspace(0, 1, self.config.depth, device=self.residual_lambdas.device)
        self.residual_lambdas.copy_(1.15 - 0.10 * depth)
        self.input_lambdas.copy_(0.20 - 0.15 * depth)
        self.smear_gate.weight.uniform_(0, 0.02, generator=rng)
        self.smear_lambda.zero_()
        self.backout_lambda.fill_(0.2)

    def _zero_outputs(self) -> None:
        """Every block starts as the identity."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attn.o.weight.zero_()
            block.mlp.down.weight.zero_()

    def _init_rotary(self, device: torch.device) -> None:
        half = self.config.head_dim // 2
        frequencies = self.config.rope_base ** -(
            torch.arange(half, device=device, dtype=torch.float32) / half
        )
        angles = torch.outer(torch.arange(self.cos.size(0), device=device, dtype=torch.float32), frequencies)
        self.cos.copy_(angles.cos())
        self.sin.copy_(angles.sin())

    def reach(self, tokens: int) -> None:
        """Accept rows of up to `tokens` tokens; each layer still sees at most the last `context` of them.

        For text that must not be cropped: a model reads worse beyond the context it was trained with.
        """
        if tokens > self.cos.size(0):
            device = self.cos.device
            self.cos, self.sin = (torch.empty(tokens, self.cos.size(1), device=device) for _ in range(2))
            self._init_rotary(device)

    # ------------------------------------------------------------------ forward

    def hidden(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids (B, T) -> final normed hidden states (B, T, C). With a cache, T new tokens a row."""
        x = norm(self.embed(idx).to(self.compute_dtype))
        rotary = self._rotary(idx.size(1), cache)
        if self.config.arch == "classic":
            for block in self.blocks:
                x = block(x, rotary, None, cache)
            return norm(x)
        x = first = self._smear(x, cache)
        midway = x
        halfway = min(self.config.depth // 2, self.config.depth - 2)  # the last output would only be rescaled
        for i, block in enumerate(self.blocks):
            x = self.residual_lambdas[i].to(x.dtype) * x + self.input_lambdas[i].to(x.dtype) * first
            ve = self.value_embeds[str(i)](idx).to(x.dtype) if str(i) in self.value_embeds else None
            x = block(x, rotary, ve, cache)
            if i == halfway:
                midway = x
        return norm(x - self.backout_lambda.to(x.dtype) * midway)

    def _rotary(self, T: int, cache: KVCache | None) -> tuple[Tensor, Tensor]:
        if cache is None:
            return self.cos[None, None, :T], self.sin[None, None, :T]
        positions = cache.positions(T)  # (B, T)
        return self.cos[positions][:, None], self.sin[positions][:, None]

    def _smear(self, x: Tensor, cache: KVCache | None) -> Tensor:
        """Add to each embedding a gated share of the one before it (within a row, across cached calls)."""
        before = None if cache is None else cache.previous
        if before is None:
            before = torch.zeros_like(x[:, :1])
        previous = torch.cat((before, x[:, :-1]), dim=1)
        if cache is not None:
            cache.previous = cache.gather_last(x)
        gate = torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        return x + self.smear_lambda.to(x.dtype) * gate * previous

    @property
    def head_weight(self) -> Tensor:
        """(V, C) rows of the output head that stand for real tokens."""
        weight = self.embed.weight if self.lm_head is None else self.lm_head.weight
        return weight[: self.config.vocab_size]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) -> float32 logits (..., V), soft-capped."""
        z = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        cap = self.config.softcap
        return cap * torch.tanh(z / cap) if cap > 0 else z

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids (B, T) -> logits (B, T, V)."""
        return self.logits(self.hidden(idx, cache))

    def loss_sum(self, idx: Tensor, targets: Tensor, factors: Tensor | None = None) -> Tensor:
        """Summed cross-entropy in nats of (B, T) targets, each times its factor (B, T); -1 = not counted."""
        hidden, factors = self.hidden(idx).flatten(0, 1), None if factors is None else factors.flatten()
        return softcap_cross_entropy(
            hidden, self.head_weight, targets.flatten(), self.config.softcap, factors
        )

    @torch.no_grad()
    def log_probs(self, idx: Tensor, targets: Tensor) -> Tensor:
        """(B, T) log-probabilities of the targets in nats, without gradient; 0 where one is -1."""
        hidden = self.hidden(idx).flatten(0, 1)
        return -softcap_cross_entropies(
            hidden, self.head_weight, targets.flatten(), self.config.softcap
        ).view_as(targets)

    # ------------------------------------------------------------------ bookkeeping

    def roles(self) -> dict[str, dict[str, nn.Parameter]]:
        """Parameters by what they do: `matrix`, `embedding`, `value`, `head`, `scalar`; each exactly once."""
        groups: dict[str, dict[str, nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if name.startswith("blocks.") and not name.endswith("attn.gate.weight"):
                role = "matrix"
            else:
                first = name.split(".")[0]
                role = {"embed": "embedding", "value_embeds": "value", "lm_head": "head"}.get(first, "scalar")
            groups.setdefault(role, {})[name] = parameter
        return groups

    def count_parameters(self) -> dict[str, int]:
        """Parameters by role, in `total`, and `scaling` (matrices + head: what the horizon scales with)."""
        counts = {role: sum(p.numel() for p in ps.values()) for role, ps in self.roles().items()}
        head = counts.get("head", counts["embedding"])
        return {**counts, "total": sum(counts.values()), "scaling": counts["matrix"] + head}

    def flops_per_token(self) -> int:
        """Training FLOPs a token: 6 a matmul weight, 12*C*window a layer (Kaplan, arXiv 2001.08361)."""
        weights = self.count_parameters()["scaling"]
        return 6 * weights + sum(12 * self.config.width * window for window in self.config.windows)
