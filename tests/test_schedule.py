"""Schedules and the laws of the one dial, against their definition and the recipe's published table."""

from __future__ import annotations

import pytest

from nanochat import schedule
from nanochat.schedule import Schedule

CURVES = [
    Schedule(total, warmup, ratio, final)
    for total in (1, 2, 3, 10, 97, 400, 1000)
    for warmup in (0, 1, 40)
    for ratio in (0.0, 0.2, 0.65, 1.0)
    for final in (0.0, 0.05)
]


def test_curves_stay_in_their_ranges() -> None:
    for curve in CURVES:
        for step in range(curve.total):
            assert 0 < curve.at(step) <= 1, (curve, step)
            assert 0.85 <= curve.momentum(step) <= 0.97, (curve, step)
            assert 0 < curve.decay(step) <= 1, (curve, step)


def test_rates_rise_then_fall() -> None:
    for curve in CURVES:
        rates = [curve.at(step) for step in range(curve.total)]
        top = rates.index(max(rates))
        assert rates[: top + 1] == sorted(rates[: top + 1]), curve
        assert rates[top:] == sorted(rates[top:], reverse=True), curve
        decays = [curve.decay(step) for step in range(curve.total)]
        assert decays == sorted(decays, reverse=True), curve


def test_rates_of_a_long_run() -> None:
    """Linear up over 40 steps, flat to 35% of the run, linear down to 5%."""
    curve = Schedule(1000)
    assert [curve.at(step) for step in (0, 19, 39, 40, 350)] == pytest.approx([1 / 40, 0.5, 1, 1, 1])
    assert curve.at(675) == pytest.approx(0.05 + 0.95 / 2)
    assert curve.at(999) == pytest.approx(0.05 + 0.95 / 650)
    assert Schedule(1000, final_ratio=0.0).at(999) == pytest.approx(1 / 650)
    assert Schedule(10, warmup=0, warmdown_ratio=0.0).at(9) == 1


def test_momentum_of_a_long_run() -> None:
    """.85 to .97 over 400 steps, flat, to .90 while the rates fall."""
    curve = Schedule(2000)
    assert [curve.momentum(step) for step in (0, 200, 400, 700)] == pytest.approx([0.85, 0.91, 0.97, 0.97])
    assert curve.momentum(1350) == pytest.approx(0.935)
    assert curve.momentum(1999) == pytest.approx(0.90, abs=1e-3)


def test_decay_is_a_half_cosine() -> None:
    curve = Schedule(100)
    assert [curve.decay(step) for step in (0, 50)] == pytest.approx([1, 0.5])
    assert curve.decay(99) < 1e-3


@pytest.mark.parametrize("step", [-1, 10])
def test_a_step_outside_the_run_is_our_bug(step: int) -> None:
    with pytest.raises(AssertionError, match="outside a run of 10"):
        Schedule(10).at(step)


# Depth -> log2 of the batch, steps, Muon's weight decay (recipe of July 2026, 12 tokens a parameter).
DIAL = {
    4: (18, 528, 1.89), 6: (18, 1062, 0.94), 8: (18, 1920, 0.520), 12: (19, 2520, 0.280),
    16: (19, 5376, 0.131), 20: (20, 4980, 0.100), 24: (20, 8352, 0.060), 26: (20, 10_510, 0.048),
    28: (20, 13_020, 0.038), 32: (21, 9600, 0.037),
}  # fmt: skip


@pytest.mark.parametrize("depth", DIAL)
def test_dial_gives_the_published_run(depth: int) -> None:
    width = 64 * depth
    horizon = 12 * (12 * depth * width**2 + 32_768 * width)
    log_batch, steps, decay = DIAL[depth]
    batch = schedule.batch_tokens(horizon, 12)
    assert batch == 2**log_batch
    assert horizon // batch == pytest.approx(steps, abs=1)
    # Below d12 the law was never fitted and grows without bound; it stops at d12's value.
    assert schedule.weight_decay(batch, horizon, 12) == pytest.approx(min(decay, 0.28), abs=6e-4)


def test_batch_law_follows_the_ratio() -> None:
    """The anchor is d12 at the same ratio, so the ratio alone does not change the batch."""
    for ratio in (4, 12, 20):
        assert schedule.batch_tokens(ratio * schedule.REFERENCE_SCALING_PARAMETERS, ratio) == 2**19


def test_rates_follow_the_square_root_of_the_batch() -> None:
    assert [schedule.batch_lr_scale(2**n) for n in (17, 19, 21)] == pytest.approx([0.5, 1, 2])
