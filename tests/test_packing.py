"""Cutting and packing: by hand, against a slow twin, and fast."""

from __future__ import annotations

import random
import time

import numpy as np

from nanochat.packing import Piece, best_fit, cut, pack, seeded_rng


def test_cut_by_hand() -> None:
    ids = np.arange(8, dtype=np.int32)
    first, second, rest = cut(ids, None, 3)
    assert first.ids.tolist() == [0, 1, 2, 3] and first.mask is None
    assert second.ids.tolist() == [3, 4, 5, 6] and second.mask.tolist() == [False, True, True, True]
    assert rest.ids.tolist() == [6, 7] and rest.mask.tolist() == [False, True]
    assert len(cut(ids[:7], None, 3)) == 2 and cut(ids[:1], None, 3) == [] and cut(ids[:0], None, 3) == []
    masked = cut(ids[:5], np.array([True, False, True, True, True]), 3)
    assert [p.mask.tolist() for p in masked] == [[True, False, True, True], [False, True]]


def test_pack_by_hand() -> None:
    document = Piece(np.array([9, 1, 2], np.int32))
    goes_on = Piece(np.array([3, 4, 5], np.int32), np.array([False, True, True]))
    seen = set()
    for seed in range(8):
        rows = pack([document, goes_on], 7, 9, seeded_rng(seed))
        assert rows.padding.tolist() == [1]
        seen.add((*rows.inputs[0].tolist(), *rows.targets[0].tolist()))
    # Behind the other document a BOS is a target (it ends that one), a continuation's first token is not.
    assert seen == {
        (9, 1, 2, 3, 4, 5, 9, 1, 2, -1, 4, 5, -1, -1),
        (3, 4, 5, 9, 1, 2, 9, 4, 5, 9, 1, 2, -1, -1),
    }


def slow_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = [capacity - sum(lengths[i] for i in chosen) for chosen in bins]
        fitting = [(left, at) for at, left in enumerate(room) if left >= lengths[index]]
        if fitting:
            bins[min(fitting)[1]].append(index)
        else:
            bins.append([index])
    return bins


def test_best_fit_uses_as_many_bins_as_its_slow_twin() -> None:
    rng = random.Random(0)
    for _ in range(200):
        lengths = [rng.randrange(2, 21) for _ in range(rng.randrange(40))]
        bins = best_fit(lengths, 20)
        assert sorted(i for chosen in bins for i in chosen) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in chosen) <= 20 for chosen in bins)
        assert len(bins) == len(slow_best_fit(lengths, 20))


def test_packing_is_fast() -> None:
    lengths = np.random.RandomState(1).randint(2, 514, 2000)
    pieces = [Piece(np.arange(n, dtype=np.int32)) for n in lengths]
    times = []
    for _ in range(5):
        start = time.process_time()
        pack(pieces, 512, 0, seeded_rng(1))
        times.append(time.process_time() - start)
    assert min(times) < 0.05, (
        f"2,000 pieces took {min(times) * 1e3:.1f} ms; 20 ms is the goal, 50 ms the limit"
    )
