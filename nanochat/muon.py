"""Muon: momentum, orthogonalised, for the matrices.

What it is: Muon (K. Jordan et al., 2024) as nanochat's July 2026 recipe has it: Nesterov momentum,
rows rescaled to their mean norm (MuonEq), Polar Express iterations (arXiv 2505.16932), a rescale to
the norm of an orthogonal matrix (Muon+), one running second moment a row of the longer side
(NorMuon, arXiv 2510.05491), cautious weight decay. Matrices of one shape are stacked and updated
together; with several ranks each updates its share of a stack. What it is not: anything for
embeddings, heads or scalars (`adamw.py`). Run: `pytest tests/test_optimizers.py`.

Legend: K matrices of a stack, (m, n) their shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nanochat.distributed import World

# Polar Express, five steps, safety 2e-2, cushion 2: p(x) = a x + b x^3 + c x^5 in each
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(x: Tensor) -> Tensor:
    """(K, m, n) -> nearest semi-orthogonal matrices, approximately; computed on the smaller side.

    In the precision of `x`: the singular values end between 0.7 and 1.2 or so in bfloat16, too.
    """
    tall = x.size(-2) > x.size(-1)
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT.contiguous() if tall else x


def updated(
    weights: Tensor, gradient: Tensor, velocity: Tensor, moments: Tensor,
    lr: float, momentum: float, decay: float, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """(k, m, n) weights and gradient -> new weights; moves `velocity` and `moments` on.

    Not compiled: that gained 1 % of a step and cost 5 s (experiments/LOG.md).
    """
    m, n = weights.shape[-2:]
    velocity.lerp_(gradient, 1 - momentum)
    x = gradient.lerp(velocity, momentum)  # Nesterov
    rows = x.norm(dim=-1, keepdim=True)
    x = x * (rows.mean(dim=-2, keepdim=True) / rows.clamp_min(1e-10))
    x = orthogonalise(x.to(dtype)).to(x.dtype)
    x = x * (min(m, n) ** 0.5 / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10))
    moments.lerp_(x.square().mean(dim=-1 if m >= n else -2, keepdim=True), 0.1)
    size = x.norm(dim=(-2, -1), keepdim=True)
    x = x / moments.sqrt().clamp_min(1e-10)
    x = x * (size / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10))
    if decay:
        x = x + decay * weights * (x * weights >= 0)  # cautious: only where it goes the update's way
    return weights - lr * max(1.0, m / n) ** 0.5 * x


class Muon:
    """`step(multiplier, momentum, decay)` updates every matrix. State: our share of both moments."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        world: World,
        lr: float,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype` is the precision of the iterations; weights and moments are the parameters' own."""
        self.world, self.lr, self.weight_decay, self.dtype = world, lr, weight_decay, dtype
        shapes = sorted({tuple(p.shape) for p in parameters.values()})
        self.stacks = {s: {n: p for n, p in parameters.items() if tuple(p.shape) == s} for s in shapes}
        self.state: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        for (m, n), stack in self.stacks.items():
            like = next(iter(stack.values()))
            share = self._share(len(stack))
            moments = (share, m, 1) if m >= n else (share, 1, n)
            self.state[m, n] = (
                torch.zeros(share, m, n, device=like.device),
                torch.zeros(moments, device=like.device),
            )

    def _share(self, matrices: int) -> int:
        """Matrices of a stack that each rank updates; the last rank's may be padding."""
        return -(-matrices // self.world.size)

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float, decay: float) -> None:
        """One update at `multiplier` times the learning rate. Consumes the gradients."""
        rates = (self.lr * multiplier, momentum, self.weight_decay * decay)
        for shape, stack in self.stacks.items():
            params = list(stack.values())
            share = self._share(len(params))
            padding = [torch.zeros_like(params[0])] * (share * self.world.size - len(params))
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
            gradient = self.world.scatter_sum(torch.stack([*grads, *padding]))
            weights = torch.stack([*(p.detach() for p in params), *padding])
            mine = weights[self.world.rank * share :][:share]
            mine = updated(mine, gradient, *self.state[shape], *rates, self.dtype)  # type: ignore[index]
            if self.world.size > 1:
                self.world.gather(mine, weights)
            else:
                weights = mine
            torch._foreach_copy_([p.detach() for p in params], list(weights.unbind()[: len(params)]))

    def slices(self) -> dict[str, tuple[Tensor, int, int]]:
        """State as {key: (tensor, first row, rows in all)}; a matrix belongs whole to one rank."""
        out: dict[str, tuple[Tensor, int, int]] = {}
        for shape, stack in self.stacks.items():
            velocity, moments = self.state[shape]  # type: ignore[index]
            share = self._share(len(stack))
            for i, name in enumerate(list(stack)[self.world.rank * share :][:share]):
                out[f"{name}.velocity"] = (velocity[i], 0, shape[0])
                out[f"{name}.moments"] = (moments[i], 0, moments[i].size(0))
        return out
