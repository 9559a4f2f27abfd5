"""The decoder against the model that it was made from: any cut of the rows, any mix in a step."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from test_engine import ARCHITECTURES, CONTEXT, random_model, random_prompts

from nanochat.decoder import Decoder, Product, Span, spare_rows


@ARCHITECTURES
def test_logits_equal_those_of_the_model(options: dict[str, Any]) -> None:
    check_against_the_model(seed=5, **options)


@pytest.mark.parametrize("activation", ["swiglu", "gelu", "silu"])
def test_every_activation(activation: str) -> None:
    check_against_the_model(seed=6, activation=activation, depth=1)


def check_against_the_model(seed: int, **options: Any) -> None:
    model = random_model(**options)
    decoder = Decoder(model)
    texts = random_prompts([150, 170, 7, 190])
    draw = random.Random(seed)
    slots = decoder.slots(len(texts) + 1, CONTEXT)
    stored = [0] * len(texts)
    with torch.inference_mode():
        whole = [model(torch.tensor([text]))[0] for text in texts]
        for call in range(8):
            spans = []
            for row, text in enumerate(texts):
                most = 120 if call == 0 else draw.choice([1, 1, 1, 9])  # far at first, so that windows bind
                new = text[stored[row] : stored[row] + most]
                if new and (call == 0 or draw.random() < 0.8):
                    spans.append(Span(row, stored[row], new, text[stored[row] - 1] if stored[row] else -1))
            if not spans:
                continue
            logits = decoder.logits(decoder.hidden(spans, slots))
            parts = logits.split([len(span.ids) for span in spans])
            for span, part in zip(spans, parts, strict=True):
                expected = whole[span.row][span.start : span.end]
                assert torch.allclose(part, expected, atol=2e-4, rtol=1e-3)
                stored[span.row] = span.end
    assert min(stored) > 1


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_half_precision_agrees_with_the_model(gain: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where prompts are read in float32, as its products are the faster ones."""
    monkeypatch.setattr("nanochat.decoder.bfloat16_gain", lambda: gain)
    model = random_model(torch.bfloat16)
    decoder = Decoder(model)
    assert decoder.widens == (gain < 1)
    (text,) = random_prompts([160])
    with torch.inference_mode():
        logits = decoder.logits(decoder.hidden([Span(0, 0, text)], decoder.slots(1, CONTEXT)))
        expected = model(torch.tensor([text]))[0]
        exact = random_model()(torch.tensor([text]))[0]
    assert (logits - expected).abs().max() < 3 * (expected - exact).abs().max()


def test_the_model_is_left_alone() -> None:
    model = random_model(torch.bfloat16)
    before = {name: p.clone() for name, p in model.named_parameters()}
    Decoder(model)
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in model.named_parameters())


def test_rows_may_be_copied_and_swapped() -> None:
    slots = Decoder(random_model(depth=1)).slots(3, 16)
    for row in range(3):
        slots.store[:, row] = row
    slots.copy(0, 1, 5)
    slots.swap(0, 2, 16)
    assert slots.store[0, :, 0, 0, 0].tolist() == [2, 0, 0]
    assert slots.store[0, :, 9, -1, 0].tolist() == [2, 1, 0]


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
            for relu in (False, True):
                y = product(x, relu=relu)
                assert y.shape == expected.shape and y.dtype == dtype
                error = (y.double() - (expected.relu() if relu else expected)).abs().max()
                assert error / expected.abs().max() < (1e-5 if dtype == torch.float32 else 1e-2)


def test_few_numbers_of_rows_are_met() -> None:
    """Each costs memory for as long as the process lives."""
    asked = range(1, 2049)
    met = {rows + spare_rows(rows) for rows in asked}
    assert len(met) <= 8 * 12 and all(spare_rows(rows) <= rows / 8 for rows in asked)
    assert met.issuperset(range(1, 17)) and met.issuperset((32, 64, 512, 2048))
