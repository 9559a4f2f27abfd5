"""Slow, obvious twins of what nanochat does fast: attention, the model, cross-entropy, AdamW, Muon.

What it is: each rule written from its definition, for one sequence or one matrix, in float64 where that
settles who is right. What it is not: fast, cached, sharded or chunked. How to run it: import it in a test.

Legend: B batch, H query heads, KVH key/value heads, T time, D head dim, C width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.gpt import GPT
from nanochat.muon import POLAR_EXPRESS


def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """(B, H, T, D), (B, KVH, T, D) twice -> (B, H, T, D): softmax of all scores, the unseen at -inf."""
    heads, T, D = q.shape[1:]
    k, v = (x.repeat_interleave(heads // x.size(1), dim=1) for x in (k, v))
    position = torch.arange(T)
    distance = position[:, None] - position[None]  # of a query from a key
    hidden = (distance < 0) | (distance >= window)
    scores = (q @ k.mT / math.sqrt(D)).masked_fill(hidden, -math.inf)  # (B, H, T, T)
    return scores.softmax(dim=-1) @ v


def _norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()


def _rotate(x: Tensor, base: float) -> Tensor:
    """(T, H, D): features j and j + D/2 are a complex number, turned by -position / base^(2j/D)."""
    T, _, D = x.shape
    angles = torch.arange(T)[:, None].double() * base ** (-torch.arange(D // 2).double() / (D / 2))
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(-1j * angles)[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def _attention_layer(model: GPT, w: dict[str, Tensor], layer: int, x: Tensor, ids: Tensor) -> Tensor:
    """(T, C) normed -> (T, C)."""
    config, at = model.config, f"blocks.{layer}.attn"
    q, k, v = ((x @ w[f"{at}.{name}.weight"].T).view(len(x), -1, config.head_dim) for name in "qkv")
    if layer in config.value_layers:
        gate = 3 * torch.sigmoid(x[:, :12] @ w[f"{at}.gate.weight"].T)  # (T, KVH)
        v = v + gate[:, :, None] * w[f"value_embeds.{layer}.weight"][ids].view_as(v)
    scale = 1.2 if config.arch == "modern" else 1.0
    q, k = (scale * _norm(_rotate(z, config.rope_base)) for z in (q, k))
    q, k, v = (z.transpose(0, 1)[None] for z in (q, k, v))  # (1, H, T, D)
    y = attention(q, k, v, config.windows[layer])
    return y[0].transpose(0, 1).flatten(1) @ w[f"{at}.o.weight"].T


def _mlp(model: GPT, w: dict[str, Tensor], layer: int, x: Tensor) -> Tensor:
    at, kind = f"blocks.{layer}.mlp", model.config.activation
    h = x @ w[f"{at}.up.weight"].T
    if kind == "relu2":
        h = torch.where(h > 0, h * h, 0)
    elif kind == "gelu":
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    elif kind == "silu":
        h = h * torch.sigmoid(h)
    else:
        gate = x @ w[f"{at}.gate.weight"].T
        h = h * gate * torch.sigmoid(gate)
    return h @ w[f"{at}.down.weight"].T


@torch.no_grad()
def logits(model: GPT, ids: Tensor) -> Tensor:
    """Token ids (T,) -> float64 logits (T, V) of the model's weights, by the recipe's description of it."""
    config, w = model.config, {name: p.double() for name, p in model.named_parameters()}
    modern = config.arch == "modern"
    x = _norm(w["embed.weight"][ids])
    if modern:
        smear = torch.sigmoid(x[1:, :24] @ w["smear_gate.weight"].T) * x[:-1]
        x = x + w["smear_lambda"] * torch.cat((torch.zeros_like(x[:1]), smear))
    first = halfway = x
    for layer in range(config.depth):
        if modern:
            x = w["residual_lambdas"][layer] * x + w["input_lambdas"][layer] * first
        x = x + _attention_layer(model, w, layer, _norm(x), ids)
        x = x + _mlp(model, w, layer, _norm(x))
        halfway = x if layer == min(config.depth // 2, config.depth - 2) else halfway
    if modern:
        x = x - w["backout_lambda"] * halfway
    z = _norm(x) @ w["embed.weight" if config.tie_embeddings else "lm_head.weight"][: config.vocab_size].T
    return config.softcap * torch.tanh(z / config.softcap) if config.softcap else z


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """Summed loss of whole logits, in the precision of the inputs; target -1 is not counted."""
    logits = hidden @ weight.T
    if softcap > 0:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def adamw(
    p: Tensor, grads: list[Tensor], lrs: list[float], betas: tuple[float, float], decay: float, eps: float
) -> Tensor:
    """A parameter after one update a gradient: algorithm 2 of arXiv 1711.05101, in float64."""
    p = p.double()
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for t, (grad, lr) in enumerate(zip(grads, lrs, strict=True), 1):
        m = betas[0] * m + (1 - betas[0]) * grad.double()
        v = betas[1] * v + (1 - betas[1]) * grad.double() ** 2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * decay * p - lr * m_hat / (v_hat.sqrt() + eps)
    return p


def polar_express(x: Tensor) -> Tensor:
    """(m, n) -> nearly its nearest semi-orthogonal matrix: odd polynomials of its singular values."""
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    s = s / (1.01 * x.norm())
    for a, b, c in POLAR_EXPRESS:
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vt


def muon(p: Tensor, grads: list[Tensor], lr: float, momentum: float, decay: float) -> Tensor:
    """A matrix (m, n) after one update a gradient, by the seven rules of the recipe, in float64."""
    p, (m, n) = p.double(), p.shape
    velocity = torch.zeros_like(p)
    moments = torch.zeros(max(m, n), dtype=torch.float64)
    for grad in (g.double() for g in grads):
        velocity = momentum * velocity + (1 - momentum) * grad
        x = momentum * velocity + (1 - momentum) * grad  # Nesterov
        norms = torch.stack([row.norm() for row in x])
        x = torch.stack([row * norms.mean() / norm for row, norm in zip(x, norms, strict=True)])  # MuonEq
        x = polar_express(x)
        x = x * math.sqrt(min(m, n)) / x.norm()  # Muon+
        size = x.norm()
        moments = 0.9 * moments + 0.1 * (x**2).mean(dim=1 if m >= n else 0)
        x = x / (moments.sqrt()[:, None] if m >= n else moments.sqrt()[None])  # NorMuon
        x = x * size / x.norm()
        rate = lr * math.sqrt(max(1, m / n))
        agreed = (x * p >= 0).double()  # cautious: decay only what the update shrinks, too
        p = p - rate * x - rate * decay * p * agreed
    return p
