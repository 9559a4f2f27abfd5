"""AdamW whose state is shared out over the ranks by rows.

What it is: Loshchilov & Hutter, arXiv 1711.05101, through torch's fused kernel, applied to this
rank's rows of each parameter: gradients are reduce-scattered, the updated rows all-gathered
(ZeRO-2, arXiv 1910.02054). Small or uneven parameters are kept whole on every rank. The same code
runs at world size 1, where each collective is the identity. What it is not: the choice of groups
(`optimizers.py`). Run: `pytest tests/test_optimizers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from nanochat.distributed import World

MIN_SHARED_ELEMENTS = 1024  # below this, a reduce-scatter costs more than it saves


@dataclass(frozen=True)
class AdamGroup:
    """Parameters by name, with one set of hyperparameters."""

    parameters: dict[str, nn.Parameter]
    lr: float
    betas: tuple[float, float] = (0.8, 0.95)
    weight_decay: float = 0.0


class AdamW:
    """`step(multiplier)` updates every group. State: two moments of this rank's rows, and a count."""

    def __init__(self, groups: list[AdamGroup], world: World, eps: float = 1e-10) -> None:
        self.groups, self.world, self.eps = groups, world, eps
        self.state: dict[str, dict[str, Tensor]] = {}
        for group in groups:
            for name, p in group.parameters.items():
                mine = self._mine(p)
                count = torch.zeros((), device=p.device)
                self.state[name] = {
                    "exp_avg": torch.zeros_like(mine),
                    "exp_avg_sq": torch.zeros_like(mine),
                    "step": count,
                }

    def _is_shared(self, p: Tensor) -> bool:
        return self.world.size > 1 and p.numel() >= MIN_SHARED_ELEMENTS and p.size(0) % self.world.size == 0

    def _mine(self, p: Tensor) -> Tensor:
        """The rows of `p` that this rank updates: a view."""
        return p.detach().chunk(self.world.size)[self.world.rank] if self._is_shared(p) else p.detach()

    @torch.no_grad()
    def step(self, multiplier: float) -> None:
        """One update at `multiplier` times each group's learning rate. Consumes the gradients."""
        for group in self.groups:
            params = [p for p in group.parameters.values() if p.grad is not None]
            states = [self.state[name] for name, p in group.parameters.items() if p.grad is not None]
            grads = [self._reduced_gradient(p) for p in params]
            mine = [self._mine(p) for p in params]
            if not params:
                continue
            adamw(
                mine, grads, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [],
                [s["step"] for s in states], fused=True, amsgrad=False,
                beta1=group.betas[0], beta2=group.betas[1],
                lr=group.lr * multiplier, weight_decay=group.weight_decay, eps=self.eps, maximize=False,
            )  # fmt: skip
            for p, rows in zip(params, mine, strict=True):
                if self._is_shared(p):
                    self.world.gather(rows.clone(), p.detach())

    def _reduced_gradient(self, p: nn.Parameter) -> Tensor:
        assert p.grad is not None
        return self.world.scatter_sum(p.grad) if self._is_shared(p) else self.world.sum(p.grad)

    def slices(self) -> dict[str, tuple[Tensor, int, int]]:
        """State as {key: (tensor, first row, rows in all)}: what a checkpoint needs to reshard it."""
        out: dict[str, tuple[Tensor, int, int]] = {}
        for group in self.groups:
            for name, p in group.parameters.items():
                rows = p.size(0)
                first = rows // self.world.size * self.world.rank if self._is_shared(p) else 0
                for key in ("exp_avg", "exp_avg_sq"):
                    out[f"{name}.{key}"] = (self.state[name][key], first, rows)
                out[f"{name}.step"] = (self.state[name]["step"].view(1), 0, 1)
        return out
