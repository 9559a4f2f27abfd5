"""Which optimizer moves which parameter, at which rate; and the two of them behind one `step`.

What it is: nanochat's table of rates (roles of `GPT.roles` -> learning rate, betas, weight decay)
and `Optimizers`, the pair as the trainer sees it. What it is not: the update rules (`muon.py`,
`adamw.py`) or the curves over the run (`schedule.py`). Run: `pytest tests/test_optimizers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.adamw import AdamGroup, AdamW
from nanochat.config import Training
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.muon import Muon
from nanochat.schedule import Schedule, batch_lr_scale

# Before the first update every block is the identity, and these only rescale what is normed next. Their
# gradients are then rounding errors, which AdamW would blow up to whole steps, others on each machine.
RESCALERS = ("residual_lambdas", "input_lambdas", "backout_lambda")


@dataclass(frozen=True)
class Optimizers:
    """Muon (absent if every parameter is AdamW's) and AdamW."""

    muon: Muon | None
    adamw: AdamW
    schedule: Schedule

    def step(self, step: int) -> float:
        """Apply update number `step` (from 0); returns the learning-rate multiplier that it used."""
        multiplier = self.schedule.at(step)
        if step == 0:
            self._drop_rescalers()
        self.adamw.step(multiplier)
        if self.muon is not None:
            self.muon.step(multiplier, self.schedule.momentum(step), self.schedule.decay(step))
        return multiplier

    def _drop_rescalers(self) -> None:
        for group in self.adamw.groups:
            for name in group.parameters.keys() & set(RESCALERS):
                group.parameters[name].grad = None

    def slices(self) -> dict[str, tuple[Tensor, int, int]]:
        """The state of this rank: {key: (tensor, first row, rows in all)}."""
        return {**self.adamw.slices(), **(self.muon.slices() if self.muon else {})}

    @torch.no_grad()
    def load_slices(self, saved: dict[str, Tensor]) -> None:
        """Fill the state from whole tensors by key, as `checkpoint_manager` gives them; absent ones stay."""
        for key, (mine, first, _) in self.slices().items():
            if key in saved:
                mine.copy_(saved[key][first : first + mine.size(0)])


def build(
    model: GPT, options: Training, world: World, schedule: Schedule, batch_tokens: int, weight_decay: float
) -> Optimizers:
    """Optimizers of a model for steps of `batch_tokens`; `weight_decay` is that of the matrices.

    Rates: nanochat's table of July 2026, scaled by the square roots of width and batch.
    """
    roles = model.roles()
    batch = batch_lr_scale(batch_tokens) * options.lr_scale
    width = (model.config.width / 768) ** -0.5 * batch
    scalars = roles.get("scalar", {})
    # A tied embedding is also the head: steps of an embedding's size would throw its logits about.
    embedding_lr = options.embedding_lr if "head" in roles else options.head_lr
    groups = [
        AdamGroup(roles["embedding"], embedding_lr * width, (0.8, 0.995), 0.001),
        AdamGroup(roles.get("head", {}), options.head_lr * width, (0.8, 0.96), 0.01),
        AdamGroup(roles.get("value", {}), 0.5 * options.embedding_lr * width, (0.8, 0.995), 0.01),
        AdamGroup(_named(scalars, "residual_lambdas"), 0.01 * options.scalar_lr * batch, (0.8, 0.95), 0.05),
        AdamGroup(_named(scalars, "input_lambdas"), options.scalar_lr * batch, (0.96, 0.95)),
        AdamGroup(_named(scalars, "smear", "backout", "blocks"), 0.2 * options.lr_scale, (0.8, 0.95)),
    ]
    if options.optimizer == "adamw":
        groups.append(AdamGroup(roles["matrix"], options.matrix_lr * width, (0.9, 0.95), 0.01))
        return Optimizers(None, AdamW(groups, world), schedule)
    muon = Muon(roles["matrix"], world, options.matrix_lr * batch, weight_decay, model.compute_dtype)
    return Optimizers(muon, AdamW(groups, world), schedule)


def _named(parameters: dict, *prefixes: str) -> dict:
    return {name: p for name, p in parameters.items() if name.startswith(prefixes)}
