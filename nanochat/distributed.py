"""Ranks: who am I, how many are we, and the few things we say to each other.

What it is: device choice, process group (gloo on CPU, nccl on GPUs), and collectives that are the identity at
world size 1, so that callers never branch. What it is not: rank variables (`common.launched`) or gradient
synchronisation (the optimizers do that on their own shards: `muon.py`, `adamw.py`).
Run: `torchrun --nproc_per_node=2 -m scripts.base_train --preset tiny`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.common import launched

# torch 2.13 gave them these names and warns about the old ones
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
TIMEOUT = datetime.timedelta(minutes=10)  # a lost rank must not hold the others' node for half an hour


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    local_rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """True on every rank if it is True on one."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item() > 0)

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def share(self, value: Any) -> Any:
        """Rank 0's JSON-like value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def collect(self, values: list[Any]) -> list[Any]:
        """The JSON-like values of all ranks, on every rank, in the order of the ranks."""
        if self.size == 1:
            return values
        lists: list[Any] = [None] * self.size
        dist.all_gather_object(lists, values)
        return [value for found in lists for value in found]

    def scatter_sum(self, rows: Tensor) -> Tensor:
        """(n * size, ...) on each rank -> this rank's (n, ...) of the sum over ranks."""
        if self.size == 1:
            return rows
        if rows.device.type == "cpu":  # gloo: reduce everything, keep our part
            dist.all_reduce(rows)
            return rows.chunk(self.size)[self.rank]
        mine = torch.empty_like(rows.chunk(self.size)[0])
        _reduce_scatter(mine, rows.contiguous())
        return mine

    def gather(self, mine: Tensor, out: Tensor) -> None:
        """Each rank's (n, ...) -> `out` (n * size, ...) on every rank."""
        if self.size > 1:
            _all_gather(out, mine.contiguous())


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is cuda, then mps, then cpu. A device that is not there is a ValueError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not available.get(name, False):
        legal = ", ".join(["auto", *(d for d, there in available.items() if there)])
        raise ValueError(f"device {name!r} is not available here; use one of: {legal}")
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def init(device: str = "auto") -> World:
    """Join the process group, if there is one to join."""
    rank, local_rank, size = launched()
    where = pick_device(device, local_rank)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size > 1:
        backend = "nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT)
    return World(rank, local_rank, size, where)


def close() -> None:
    """Leave the process group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
