"""The data path: every target exactly once, little padding, one stream for any world size, exact resume."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_helpers import BYTES, Numbered, chat, random_lengths, take

from nanochat import dataloader
from nanochat.dataloader import COUNTERS, Batch, DocumentSource, ItemSource, _Prefetch, batches, epoch_rows
from nanochat.dataset import split_shards, write_shards
from nanochat.packing import IGNORED


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.inputs, y.inputs)
        and torch.equal(x.targets, y.targets)
        and x.state == y.state
        and x.stats == y.stats
        for x, y in zip(a, b, strict=True)
    )


def realistic_lengths(n: int, seed: int, mean_tokens: int = 600) -> list[int]:
    """Long-tailed, like web pages: a median of about half the mean, the longest 50 times as long."""
    draws = np.random.RandomState(seed).lognormal(np.log(mean_tokens * 0.6), 1.0, n)
    return np.maximum(draws.astype(int), 1).tolist()


@pytest.mark.parametrize(("context", "limit"), [(512, 0.02), (2048, 0.02)])
def test_padding_is_small_on_realistic_lengths(context: int, limit: float) -> None:
    source = Numbered([realistic_lengths(1024, seed) for seed in range(2)])
    last = take(source, epochs=1, context=context, rows=64)[-1].stats
    assert last["padding"] / (last["padding"] + last["tokens"]) < limit
    assert last["cropped"] == last["truncated"] == 0


# ----------------------------------------------------------------------------- the stream


def check_epoch(source: Numbered, found: list[Batch]) -> None:
    """Each token of each document is a target exactly once, right behind its predecessor."""
    before = {
        int(b): int(a)
        for w in range(len(source.lengths))
        for ids in source.documents(w)
        for a, b in itertools.pairwise(ids)
    }
    times: Counter[int] = Counter()
    starts = 0
    for batch in found:
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            for at, (x, y) in enumerate(zip(inputs, targets, strict=True)):
                if y > 0:
                    assert before[y] == x
                    times[y] += 1
                if y == 0:  # the end of a document: the next token must start another one
                    assert at + 1 == len(inputs) or before.get(targets[at + 1]) == 0
                starts += x == 0 and y > 0
    assert set(times) == set(before) and set(times.values()) <= {1}
    assert starts == sum(n > 0 for lengths in source.lengths for n in lengths)  # no second BOS anywhere


@pytest.mark.parametrize("seed", range(12))
def test_every_target_exactly_once(seed: int) -> None:
    rng = random.Random(seed)
    source = Numbered(random_lengths(rng, 4, 40), seed)
    for context in (1, 2, 5, 16, 64):
        found = take(source, epochs=1, context=context, rows=3)
        check_epoch(source, found)
        stats = found[-1].stats
        assert stats["tokens"] + stats["padding"] == stats["rows"] * context
        assert stats["targets"] == sum(int((b.targets >= 0).sum()) for b in found)
        assert stats["rows"] + stats["filler_rows"] == 3 * len(found)
        assert epoch_rows(source, context) == stats["rows"]


def test_some_windows_stand_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Numbered([[length % 30 + 1 for length in range(40)] for _ in range(50)], seed=0)
    exact = epoch_rows(source, 16)
    monkeypatch.setattr(dataloader, "COUNTED_WINDOWS", 5)
    assert epoch_rows(source, 16) == exact  # its windows are alike
    asked: list[int] = []
    window = source.window
    monkeypatch.setattr(source, "window", lambda epoch, index: asked.append(index) or window(epoch, index))
    epoch_rows(source, 16)
    assert asked == [0, 1, 2, 3, 4]


def test_documents_from_shards_lose_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    texts = ["".join(rng.choice("abc d") for _ in range(rng.randrange(120))) for _ in range(400)]
    write_shards(tmp_path, texts, ["held out"], shard_mb=0.005)
    train, val = split_shards(tmp_path)
    source = DocumentSource(train, BYTES, seed=3)
    found = take(source, epochs=2, context=32, rows=64)
    letters = Counter(t for b in found for t in b.targets.flatten().tolist() if 0 <= t < 256)
    assert letters == Counter({k: 2 * v for k, v in Counter("".join(texts).encode()).items()})
    assert found[-1].state["epoch"] == 2
    assert epoch_rows(DocumentSource(val, BYTES, seed=3), 32) == 1


def test_epochs_and_seeds_change_the_order(tmp_path: Path) -> None:
    write_shards(tmp_path, [f"document number {i}" for i in range(600)], ["v"], shard_mb=0.002)
    train, _ = split_shards(tmp_path)

    def first_rows(seed: int, epochs: int) -> list[list[int]]:
        found = take(DocumentSource(train, BYTES, seed), epochs=epochs, context=32, rows=1)
        return [row for b in found for row in b.inputs.tolist()]

    one, two = first_rows(1, 1), first_rows(1, 2)
    assert two[: len(one)] == one and two[len(one) :][:50] != one[:50]
    assert first_rows(2, 1)[:50] != one[:50] and first_rows(1, 1) == one


def test_batch_shapes_and_types() -> None:
    (batch,) = take(Numbered([[30, 30]]), 1, rows=3, context=4)
    assert batch.inputs.shape == batch.targets.shape == (3, 4)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert set(batch.stats) == {*COUNTERS, "epoch", "step_targets", "step_tokens", "all_tokens"}
    json.dumps(batch.state)


@pytest.mark.parametrize(("world", "accumulation"), [(1, 8), (2, 4), (4, 2), (4, 1), (8, 1)])
def test_world_size_does_not_change_the_stream(world: int, accumulation: int) -> None:
    source = Numbered(random_lengths(random.Random(9), 5, 30))
    whole = take(source, epochs=2, rows=2, accumulation=8)
    ranks = [
        take(source, epochs=2, rows=2, rank=r, world=world, accumulation=accumulation) for r in range(world)
    ]
    assert len({len(r) for r in ranks}) == 1
    rows = torch.cat([r[i].inputs for i in range(len(ranks[0])) for r in ranks])
    expected = torch.cat([b.inputs for b in whole])
    n = min(len(rows), len(expected))
    assert torch.equal(rows[:n], expected[:n]) and n >= whole[-1].stats["rows"]
    if world * accumulation == 8:
        assert len({json.dumps(r[-1].state) for r in ranks} | {json.dumps(whole[-1].state)}) == 1
    assert ranks[0][-1].state["data_hash"] == whole[-1].state["data_hash"]


# ----------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "lengths", [random_lengths(random.Random(4), 4, 25), [[3], [], [0, 0], [40], [8, 8]]]
)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_resume_at_every_step_twice_equals_the_straight_run(
    lengths: list[list[int]], accumulation: int
) -> None:
    source = Numbered(lengths)
    options: dict[str, Any] = {"rows": 2, "accumulation": accumulation, "epochs": 3}
    straight = take(source, **options)
    assert {b.state["epoch"] for b in straight} == {0, 1, 2, 3}
    steps = len(straight) // accumulation
    for first in range(steps + 1):
        middle = min(first + 1 + first % 2, steps)
        a = take(source, first * accumulation, **options)
        b = take(source, (middle - first) * accumulation, state=saved(a), **options)
        c = take(source, state=saved(b) or saved(a), **options)
        assert same(a + b + c, straight)


def saved(found: list[Batch]) -> dict[str, Any] | None:
    return json.loads(json.dumps(found[-1].state)) if found else None


def test_a_resume_does_not_remake_finished_windows() -> None:
    source = Numbered([[16], [16], [16]])
    (batch,) = take(source, 1, rows=2, context=8)
    assert batch.state["window"] == 1 and batch.state["row"] == 0
    source.made.clear()
    take(source, 1, rows=2, context=8, state=batch.state)
    assert source.made[0] == (0, 1)


def test_state_moves_only_at_the_end_of_a_step() -> None:
    found = take(Numbered([[100]]), 6, rows=1, accumulation=3)
    rows = [b.state["counters"]["rows"] for b in found]
    assert rows == [0, 0, 3, 3, 3, 6]
    assert found[0].stats == found[2].stats and found[2].stats["rows"] == 3
    assert found[0].stats["step_targets"] == sum(int((b.targets >= 0).sum()) for b in found[:3])


def test_a_resume_may_change_the_world_size() -> None:
    source = Numbered(random_lengths(random.Random(2), 4, 30))
    straight = take(source, epochs=2, rows=2, accumulation=4)
    a = take(source, 8, epochs=2, rows=2, accumulation=4)
    ranks = [take(source, epochs=2, rows=2, rank=r, world=4, state=saved(a)) for r in range(4)]
    rows = [r[i] for i in range(len(ranks[0])) for r in ranks]
    assert all(torch.equal(x.inputs, y.inputs) for x, y in zip(rows, straight[8:], strict=True))
    assert saved(ranks[3]) == saved(straight)


def test_a_state_of_other_data_is_refused() -> None:
    state = saved(take(Numbered([[9, 9]]), 1))
    for source, context in (
        (Numbered([[9, 8]]), 8),
        (Numbered([[9, 9]], seed=8), 8),
        (Numbered([[9, 9]]), 4),
    ):
        with pytest.raises(ValueError, match="belongs to other data, another tokenizer, seed or context"):
            batches(source, rows=2, context=context, state=state)


def test_data_hash_tells_streams_apart() -> None:
    hashes = {take(Numbered([[20, 9, 3]], seed), epochs=1)[-1].state["data_hash"] for seed in range(5)}
    assert len(hashes) == 5


def test_the_last_step_is_filled_with_rows_that_do_not_count() -> None:
    source = Numbered([[16]])
    found = take(source, epochs=1, rows=2, world=4, rank=3, accumulation=2)
    assert len(found) == 2 and all((b.targets == IGNORED).all() for b in found)
    assert found[-1].stats["filler_rows"] == 14 and found[-1].stats["rows"] == 2
    assert take(source, epochs=1, rows=2, state=found[-1].state) == []


# ----------------------------------------------------------------------------- faults


def test_bad_sizes() -> None:
    source = Numbered([[9]])
    for name in ("rows", "context", "world", "accumulation", "epochs"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            batches(source, **{"rows": 1, "context": 8, name: 0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rank 2 is not one of the 2 ranks 0 to 1"):
        batches(source, rows=1, context=8, rank=2, world=2)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the mixture is empty"):
        ItemSource([], BYTES, 1)
    with pytest.raises(ValueError, match="no shards to read"):
        DocumentSource([], BYTES, 1)
    with pytest.raises(ValueError, match="supervise 'user': choose"):
        ItemSource([chat("Q", "A")], BYTES, 1, supervise="user")  # type: ignore[arg-type]
    for source in (ItemSource([chat("Q" * 50, "A")], BYTES, 1, max_tokens=9), Numbered([[0], []])):
        with pytest.raises(ValueError, match="a whole pass over the data gave no row"):
            take(source, 1)
    write_shards(tmp_path, ["", ""], ["v"])
    with pytest.raises(ValueError, match="gave no row"):
        take(DocumentSource(split_shards(tmp_path)[0], BYTES, 1), 1)


def test_a_shard_that_vanishes_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, ["text"], ["v"])
    source = DocumentSource(split_shards(tmp_path)[0], BYTES, 1)
    (tmp_path / "shard_00000.parquet").unlink()
    with pytest.raises(ValueError, match=r"shard_00000\.parquet is missing"):
        take(source, 1)


# ----------------------------------------------------------------------------- the thread


def loader_threads() -> int:
    return sum(t.name == "nanochat-dataloader" for t in threading.enumerate())


def test_closing_ends_the_thread() -> None:
    stream = batches(Numbered([[50]] * 3), rows=1, context=8)
    next(stream)
    assert loader_threads() == 1
    stream.close()  # type: ignore[attr-defined]
    assert loader_threads() == 0


def test_prefetch_is_one_ahead() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    ahead = _Prefetch(numbers())
    stream = iter(ahead)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1] and list(stream) == list(range(1, 10))
    ahead.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_a_gpu() -> None:
    source = Numbered([[50, 3, 9]] * 3)
    there, here = take(source, epochs=1, device="cuda"), take(source, epochs=1)
    assert all(b.inputs.is_cuda and b.targets.is_cuda for b in there)
    assert all(torch.equal(a.inputs.cpu(), b.inputs) for a, b in zip(there, here, strict=True))
