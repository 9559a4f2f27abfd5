"""The one data path of all stages: texts or conversations in, batches of rows out.

    source -> window of pieces -> cut -> pack -> rows in a seeded order -> steps -> this rank's micro-batches

A *piece* is a run of tokens to train on. A *window* is a bounded part of the data (one Parquet row group, or
1,024 items) that is cut, packed and shuffled on its own, so the stream of rows is a pure function of (seed,
data, context): it does not depend on the number of ranks, and three numbers (epoch, window, row) are its
exact position. A document goes on in further rows without a second BOS; only what remains of each is packed
best-fit, so padding is small and nothing is cropped. What was padded, truncated or refused is counted.

What it is not: a place that knows stages or reads options. Every rank walks the whole stream and takes its
rows; tokenising runs one window ahead in a thread. How to look at it: `tests/test_dataloader.py`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from nanochat.packing import IGNORED, Rows, cut, pack, seeded_rng
from nanochat.sources import DocumentSource, ItemSource, Source, Window, digest

__all__ = ["Batch", "DocumentSource", "ItemSource", "Source", "Window", "batches", "epoch_rows"]
COUNTED_WINDOWS = 64  # of a mixture of 293,000 items they give its rows to .5 %
COUNTERS = ("rows", "tokens", "targets", "padding", "truncated", "cropped", "refused", "filler_rows")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """One micro-batch of this rank.

    `state` is what to save once its optimizer step is done; before the last micro-batch of a step it is the
    state after the step before. `stats` are global, not this rank's: the cumulative COUNTERS, `epoch`, and of
    the whole step over all ranks `step_targets` (what the summed loss is divided by) and `step_tokens`
    (padding included), whose sum over the run is `all_tokens`.
    """

    inputs: torch.Tensor  # (B, T) int64
    targets: torch.Tensor  # (B, T) int64, -1 = not counted
    state: dict[str, Any]
    stats: dict[str, int]
    is_last: bool = True  # of its step
    factors: torch.Tensor | None = None  # (B, T) float32: what each target's loss is multiplied by
    scores: dict[str, float] = field(default_factory=dict)  # of the step: figures for the log


# ----------------------------------------------------------------------------- rows to steps


@dataclass
class _Position:
    """Where the stream is: what `Batch.state` holds."""

    source: str
    epoch: int = 0
    window: int = 0
    row: int = 0
    data_hash: str = "0" * 64  # sha256 chain over all rows so far: equal hashes mean the same data was seen
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    @classmethod
    def restore(cls, state: dict[str, Any] | None, source: str) -> _Position:
        if state is None:
            return cls(source)
        if state.get("source") != source:
            raise ValueError(
                "the saved data position belongs to other data, another tokenizer, seed or context; "
                "continue with the ones that the run began with, or start a new run (--fresh)"
            )
        return cls(**{**state, "counters": {**dict.fromkeys(COUNTERS, 0), **state["counters"]}})

    def state(self) -> dict[str, Any]:
        return {**vars(self), "counters": dict(self.counters)}

    def add(self, **counts: int) -> None:
        for name, count in counts.items():
            self.counters[name] += int(count)


class _Prepared(NamedTuple):
    """A packed window, ready to be consumed from its row `first`."""

    epoch: int
    window: int
    is_last: bool  # of its epoch
    first: int
    rows: Rows
    digests: list[bytes]  # of each row
    found: Window


def _prepare(source: Source, context: int, epoch: int, window: int) -> tuple[Window, Rows]:
    found = source.window(epoch, window)
    pieces = [part for piece in found.pieces for part in cut(*piece, context)]
    return found, pack(pieces, context, source.bos_id, seeded_rng(source.seed, epoch, window))


def _windows(
    source: Source, context: int, start: tuple[int, int, int], epochs: int | None
) -> Iterator[_Prepared]:
    epoch, window, row = start
    while epochs is None or epoch < epochs:
        is_whole, n_rows = window == 0, 0
        for index in range(window, source.len_windows(epoch)):
            found, rows = _prepare(source, context, epoch, index)
            digests = [
                hashlib.sha256(x.tobytes() + y.tobytes()).digest() for x, y in zip(*rows[:2], strict=True)
            ]
            n_rows += len(digests)
            is_last = index == source.len_windows(epoch) - 1
            yield _Prepared(epoch, index, is_last, row, rows, digests, found._replace(pieces=[]))
            row = 0
        if is_whole and not n_rows:
            raise ValueError(
                "there is nothing to train on: a whole pass over the data gave no row, because all documents "
                "are empty or all conversations were refused (see above); use other data or a longer context"
            )
        epoch, window = epoch + 1, 0


class _Step(NamedTuple):
    inputs: np.ndarray  # (rows of all ranks and micro-batches, T) int32
    targets: np.ndarray
    state: dict[str, Any]
    stats: dict[str, int]


def _steps(windows: Iterator[_Prepared], position: _Position, bos_id: int, step_rows: int) -> Iterator[_Step]:
    """Whole optimizer steps of `step_rows` rows; the last one is filled up with rows that do not count."""
    parts: list[Rows] = []
    missing = step_rows
    for prepared in windows:
        first, n_rows = prepared.first, len(prepared.digests)
        if first == 0:
            found = prepared.found
            position.add(truncated=found.truncated, cropped=found.cropped, refused=found.refused)
        _move_to(prepared, first, position)
        while first < n_rows:
            end = min(first + missing, n_rows)
            parts.append(_take(prepared, first, end, position))
            missing -= end - first
            first = end
            if not missing:
                yield _step(parts, position)
                parts, missing = [], step_rows
    if parts:
        shape = (missing, parts[0].inputs.shape[1])
        position.add(filler_rows=missing)
        ignored = np.full(shape, IGNORED, np.int32)
        parts.append(Rows(np.full(shape, bos_id, np.int32), ignored, np.full(missing, shape[1])))
        yield _step(parts, position)


def _take(prepared: _Prepared, first: int, end: int, position: _Position) -> Rows:
    """Rows first..end of a window, counted and hashed into `position`."""
    rows = Rows(*(array[first:end] for array in prepared.rows))
    for row in prepared.digests[first:end]:
        position.data_hash = hashlib.sha256(bytes.fromhex(position.data_hash) + row).hexdigest()
    padding = int(rows.padding.sum())
    counted = int((rows.targets != IGNORED).sum())
    position.add(rows=end - first, tokens=rows.inputs.size - padding, padding=padding, targets=counted)
    _move_to(prepared, end, position)
    return rows


def _move_to(prepared: _Prepared, row: int, position: _Position) -> None:
    """Behind a window's last row comes the start of the next: a resume need not make the old one again."""
    position.epoch, position.window, position.row = prepared.epoch, prepared.window, row
    if row == len(prepared.digests):
        position.window, position.row = prepared.window + 1, 0
        if prepared.is_last:
            position.epoch, position.window = prepared.epoch + 1, 0


def _step(parts: list[Rows], position: _Position) -> _Step:
    inputs, targets, _ = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    step_targets = int((targets != IGNORED).sum())
    rows = position.counters["rows"] + position.counters["filler_rows"]
    sizes = {"step_tokens": inputs.size, "all_tokens": rows * inputs.shape[1]}
    stats = {**position.counters, "epoch": position.epoch, "step_targets": step_targets, **sizes}
    return _Step(inputs, targets, position.state(), stats)


# ----------------------------------------------------------------------------- batches


def batches(  # noqa: PLR0913 - one flat call, keyword-only, is what the trainer reads best
    source: Source,
    *,
    rows: int,
    context: int,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
    state: dict[str, Any] | None = None,
    epochs: int | None = None,
    device: str | torch.device = "cpu",
) -> Generator[Batch, None, None]:
    """Micro-batches of `rows` rows for this rank, `accumulation` of them a step; endless without `epochs`.

    Of a step's rows, micro-batch a of rank r takes `rows` rows from (a * world + r) * rows on. With `state`
    (of a `Batch`) the stream goes on right behind it, also at another world size. ValueError for bad sizes,
    for a state of other data, and for data that give no row.
    """
    sizes = {"rows": rows, "context": context, "world": world, "accumulation": accumulation, "epochs": epochs}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of the {world} ranks 0 to {world - 1}")
    position = _Position.restore(state, digest(source.fingerprint, context))
    return _batches(
        source, position, rows, context, (rank, world, accumulation), epochs, torch.device(device)
    )


def _batches(
    source: Source,
    position: _Position,
    rows: int,
    context: int,
    share: tuple[int, int, int],
    epochs: int | None,
    device: torch.device,
) -> Generator[Batch, None, None]:
    rank, world, accumulation = share
    before = position.state()
    start = (position.epoch, position.window, position.row)
    with closing(_Prefetch(_windows(source, context, start, epochs))) as ahead:
        for step in _steps(iter(ahead), position, source.bos_id, rows * world * accumulation):
            for micro in range(accumulation):
                first = (micro * world + rank) * rows
                inputs, targets = (_to_device(x[first : first + rows], device) for x in step[:2])
                is_last = micro == accumulation - 1
                yield Batch(inputs, targets, step.state if is_last else before, step.stats, is_last)
            before = step.state


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array.astype(np.int64))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def epoch_rows(source: Source, context: int, epoch: int = 0) -> int:
    """Rows of one epoch, by packing it: for a horizon given in epochs.

    Of more than COUNTED_WINDOWS, which takes seconds, so many stand for all.
    """
    windows = source.len_windows(epoch)
    counted = range(min(windows, COUNTED_WINDOWS))
    rows = sum(len(_prepare(source, context, epoch, index)[1].inputs) for index in counted)
    return round(rows * windows / max(1, len(counted)))


class _Prefetch(Generic[Item]):
    """Runs an iterator in a thread, one item ahead. What it raises is raised where the items are taken."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._ready: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._may_produce = threading.Semaphore(1)
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="nanochat-dataloader", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while True:
                self._may_produce.acquire()
                if self._is_closed:
                    return
                self._ready.put(("item", next(self._items)))
        except StopIteration:
            self._ready.put(("end", None))
        except BaseException as error:
            self._ready.put(("error", error))

    def __iter__(self) -> Iterator[Item]:
        while True:
            kind, value = self._ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            self._may_produce.release()  # the next one is made while this one is used
            yield value

    def close(self) -> None:
        self._is_closed = True
        self._may_produce.release()
        self._thread.join()
