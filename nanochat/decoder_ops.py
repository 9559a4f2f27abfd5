"""The decoder's operations, each in the form that is fastest on a CPU; elsewhere they are torch's own.

What it is: products by a fixed matrix with what follows them, norms, and rows in parts that need no second
thread. What it is not: differentiable, or chosen by measuring on this machine: the limits below were measured
once, on several. Run: `pytest tests/test_decoder_ops.py`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.gpt import EPSILON

PACK_ROWS = 16  # the number of rows that oneDNN lays a matrix out for; it serves others as well
PACKED_PAYS = range(3, 256)  # rows; for fewer and for more, MKL and the plain layout win in float32
WIDE_PAYS = 128  # rows from which bfloat16 is turned into float32 where that is the faster one
GRAIN = (1 << 15) - 1  # elements up to which torch does an operation without a second thread
SHARED = 8 * GRAIN  # elements up to which one thread is faster than two, one of which has to be woken
SMALL = 1 << 18  # weights of a float32 matrix for which MKL likes one input's weights side by side


def in_parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows of tensors side by side, few enough of the first for torch not to call a second thread, or all.

    To wake one that sleeps (OMP_WAIT_POLICY=PASSIVE) takes 0.1 ms, ten times as long as such an operation.
    """
    size = tensors[0].numel()
    if not GRAIN < size <= SHARED or tensors[0].device.type != "cpu":
        return [tensors]
    rows = tensors[0].size(0)
    count = math.ceil(rows / max(1, GRAIN * rows // size))
    return list(zip(*(t.chunk(count) for t in tensors), strict=True))


class Norm:
    """`gpt.norm` of vectors of one size, in four operations where torch's own, on a CPU, is twelve."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.root = torch.tensor(size**0.5, device=device)
        self.least = torch.tensor((size * EPSILON) ** 0.5, device=device)

    def __call__(self, x: Tensor) -> Tensor:
        if len(parts := in_parts(x)) > 1:
            return torch.cat([self(part) for (part,) in parts])
        if x.dtype == torch.float32:
            return x * (self.root / self.length(x))
        wide = x.float()
        return wide.mul_(self.root / self.length(wide)).to(x.dtype)

    def length(self, x: Tensor) -> Tensor:
        """(..., 1) lengths of float32 vectors, never zero; over them a vector is its norm over `root`."""
        return torch.hypot(torch.linalg.vector_norm(x, 2, -1, True), self.least)


THEN: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {  # by oneDNN's names
    "none": lambda y, _: y,
    "relu": lambda y, _: y.relu_(),
    "swish": lambda y, _: F.silu(y, inplace=True),
    "add": lambda y, other: y.add_(other),
    "mul": lambda y, other: y.mul_(other),
}


class Product:
    """`x @ weight.T`, the weights laid out as is fastest on a CPU.

    In bfloat16 that is oneDNN's own layout (1.1 to 2 times as fast as a plain one), in float32 it is for some
    rows of a large matrix; a small one is turned, which gains 5 % at one row and up to 40 % at 64. `widens`:
    many rows of bfloat16 are multiplied in float32.
    """

    def __init__(self, weight: Tensor, *, widens: bool = False) -> None:
        self.turned, self.widens = weight.t(), widens
        self.packed_rows = range(0)  # numbers of rows for oneDNN's layout
        if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return
        if weight.dtype == torch.float32 and weight.numel() <= SMALL:
            self.turned = self.turned.contiguous()
        elif weight.dtype == torch.float32:
            self.packed_rows = PACKED_PAYS
        elif weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            self.packed_rows = range(WIDE_PAYS if widens else sys.maxsize)
        if self.packed_rows:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACK_ROWS)
        if self.packed_rows.stop == sys.maxsize:
            del self.turned

    def __call__(self, x: Tensor, then: str = "none", other: Tensor | None = None) -> Tensor:
        """(N, in) -> (N, out). `then`: a key of THEN, done on the way by oneDNN; `other`: (N, out)."""
        rows = x.size(0)
        if rows not in self.packed_rows:
            return THEN[then](self._plainly(x), other)
        if spare := spare_rows(rows):
            x = torch.cat((x, x[:spare]))
            other = None if other is None else torch.cat((other, other[:spare]))
        if other is None:
            y = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, then, [], "")
        else:
            y = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, None, then)
        return y[:rows] if spare else y

    def _plainly(self, x: Tensor) -> Tensor:
        if self.widens:
            return torch.mm(x.float(), self.turned.float()).to(x.dtype)
        return torch.mm(x, self.turned)


def spare_rows(rows: int) -> int:
    """Rows to add, an eighth at most: for each number of rows oneDNN makes and keeps code, half a MiB."""
    return -rows % (1 << max(0, rows.bit_length() - 4))
