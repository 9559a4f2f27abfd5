"""Sampling: exact distributions over evenly spaced draws, so that no test depends on luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nanochat.sampling import Sampling, draws_of, sample


def distribution(logits: list[float], sampling: Sampling, n: int = 10_000) -> list[float]:
    """Share of each token over evenly spaced draws: exact to 1/n, no randomness in the test."""
    draws = (torch.arange(n) + 0.5) / n
    ids = sample(torch.tensor(logits).expand(n, -1), draws, sampling)
    return (torch.bincount(ids, minlength=len(logits)) / n).tolist()


PROBABILITIES = [0.05, 0.4, 0.15, 0.1, 0.3]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), PROBABILITIES),
        (Sampling(top_k=0), PROBABILITIES),
        (Sampling(top_k=99), PROBABILITIES),
        (Sampling(top_k=1), [0, 1, 0, 0, 0]),
        (Sampling(top_k=2), [0, 4 / 7, 0, 0, 3 / 7]),
        (Sampling(top_p=0.1), [0, 1, 0, 0, 0]),
        (Sampling(top_p=0.6), [0, 4 / 7, 0, 0, 3 / 7]),
        (Sampling(top_p=0.75), [0, 0.4 / 0.85, 0.15 / 0.85, 0, 0.3 / 0.85]),
        (Sampling(min_p=0.3), [0, 0.4 / 0.85, 0.15 / 0.85, 0, 0.3 / 0.85]),
        (Sampling(min_p=1.0), [0, 1, 0, 0, 0]),
        (Sampling(top_k=2, top_p=0.5), [0, 1, 0, 0, 0]),  # 4/7 of what top-k left is enough
        (Sampling(temperature=0.5), [p * p / 0.285 for p in PROBABILITIES]),
        (Sampling(temperature=1e-30), [0, 1, 0, 0, 0]),
        (Sampling(temperature=0, top_k=3), [0, 1, 0, 0, 0]),
    ],
)
def test_sampling_has_the_right_distribution(sampling: Sampling, expected: list[float]) -> None:
    shares = distribution(torch.tensor(PROBABILITIES).log().tolist(), sampling)
    assert shares == pytest.approx(expected, abs=3e-4)
    assert all(share == 0 for share, p in zip(shares, expected, strict=True) if p == 0)


def test_sampling_never_leaves_what_is_kept() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 500, generator=rng) * 4
    last = torch.full((200,), 1 - 2**-24)
    for sampling in (Sampling(), Sampling(top_k=7), Sampling(top_p=0.5), Sampling(top_k=50, top_p=0.9)):
        ids = sample(logits, last, sampling)
        rank = (logits > logits.gather(1, ids[:, None])).sum(-1)
        assert ids.max() < 500
        if sampling.top_k:
            assert rank.max() < sampling.top_k
        if sampling.top_p < 1:
            above = logits.softmax(-1).masked_fill(logits <= logits.gather(1, ids[:, None]), 0).sum(-1)
            assert above.max() < sampling.top_p + 1e-4


def test_a_draw_of_zero_skips_what_has_no_probability() -> None:
    logits = torch.tensor([[-1e9, 0.0, 0.0]])
    assert sample(logits, torch.zeros(1), Sampling()).tolist() == [1]


def test_draws_belong_to_seed_and_sample() -> None:
    assert np.array_equal(draws_of(7, 1, 5), draws_of(7, 1, 9)[:5])
    assert not np.array_equal(draws_of(7, 0, 5), draws_of(7, 1, 5))
    assert draws_of(7, 0, 50).min() >= 0 and draws_of(7, 0, 50).max() < 1


def test_the_least_values_are_greedy() -> None:
    """Numbers that float32 rounds to zero once broke the engine for all."""
    logits, draws = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.9)
    for sampling in (Sampling(top_p=5e-324), Sampling(temperature=5e-324), Sampling(5e-324, 3, 5e-324, 1.0)):
        assert sample(logits, draws, sampling).tolist() == logits.argmax(dim=-1).tolist()
