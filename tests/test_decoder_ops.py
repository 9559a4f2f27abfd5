"""The decoder's operations against plain ones, for every number of rows that takes another way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nanochat.decoder_ops import GRAIN, Norm, Product, in_parts, spare_rows
from nanochat.gpt import EPSILON


@pytest.mark.parametrize(
    ("dtype", "widens"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)
def test_products_of_every_size(dtype: torch.dtype, widens: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    for n_out, n_in in ((64, 32), (1024, 1024)):
        weight = torch.randn(n_out, n_in, generator=rng).to(dtype)
        product = Product(weight, widens=widens)
        for rows in (1, 2, 5, 37, 40, 130, 300):
            x = torch.randn(rows, n_in, generator=rng).to(dtype)
            expected = x.double() @ weight.double().T
            other = torch.randn(expected.shape, generator=rng).to(dtype)
            for then, follow in FOLLOWING.items():
                wanted = follow(expected, other.double())
                y = product(x, then, other if then in ("add", "mul") else None)
                assert y.shape == wanted.shape and y.dtype == dtype
                error = (y.double() - wanted).abs().max()
                assert error / wanted.abs().max() < (1e-5 if dtype == torch.float32 else 1e-2)


FOLLOWING = {
    "none": lambda y, _: y,
    "relu": lambda y, _: y.relu(),
    "swish": lambda y, _: y * y.sigmoid(),
    "add": lambda y, other: y + other,
    "mul": lambda y, other: y * other,
}


@pytest.mark.parametrize("rows", [1, 42, 43, 100, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_any_number_of_rows(rows: int, dtype: torch.dtype) -> None:
    x = torch.randn(rows, 768, generator=torch.Generator().manual_seed(rows)).to(dtype)
    y = Norm(768, x.device)(x)
    exact = F.rms_norm(x.double(), (768,), eps=EPSILON)
    assert y.dtype == dtype
    assert torch.allclose(y.double(), exact, rtol=1e-6 if dtype == torch.float32 else 2**-8)


def test_parts_are_rows_of_all_tensors_in_their_order() -> None:
    x, ids = torch.randn(100, 768), torch.arange(100)
    parts = list(in_parts(x, ids))
    assert len(parts) == 3 and all(len(rows) == len(own) for rows, own in parts)
    assert all(rows.numel() <= GRAIN for rows, _ in parts)
    assert torch.equal(torch.cat([rows for rows, _ in parts]), x)
    assert torch.cat([own for _, own in parts]).tolist() == list(range(100))
    for few_or_many in (torch.randn(42, 768), torch.randn(1000, 768)):
        assert list(in_parts(few_or_many)) == [(few_or_many,)]


def test_few_numbers_of_rows_are_met() -> None:
    """Each costs memory for as long as the process lives."""
    asked = range(1, 2049)
    met = {rows + spare_rows(rows) for rows in asked}
    assert len(met) <= 8 * 12 and all(spare_rows(rows) <= rows / 8 for rows in asked)
    assert met.issuperset(range(1, 17)) and met.issuperset((32, 64, 512, 2048))
