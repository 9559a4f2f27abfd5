"""The decoder against the model that it was made from: any cut of the rows, any mix in a step."""

from __future__ import annotations

import random
from typing import Any

import psutil
import pytest
import torch
from test_engine import ARCHITECTURES, CONTEXT, random_model, random_prompts

from nanochat.decoder import Decoder, Span


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
    assert slots.store[0, :, -1, 9, 0].tolist() == [2, 1, 0]


def test_columns_that_no_row_has_reached_cost_no_memory() -> None:
    decoder, process = Decoder(random_model(depth=1)), psutil.Process()
    before = process.memory_info().rss
    slots = decoder.slots(64, 16384)
    write = slots.writer(range(64), [0] * 64)
    write(0, torch.ones(64, slots.store.size(2), slots.store.size(4)))
    assert slots.store.nbytes > 64 << 20
    assert process.memory_info().rss - before < slots.store.nbytes // 8
    assert slots.store[0, :, :, 0].min() == 1
