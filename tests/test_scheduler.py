"""The scheduler with real models and threads: joining, leaving, cancelling, refusing, failing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_engine import CONTEXT, random_model, random_prompts

from nanochat.calculator import calculate
from nanochat.common import UsageError
from nanochat.engine import Engine
from nanochat.request import GREEDY, Request
from nanochat.scheduler import Closed, Event, Handle, QueueFull, Scheduler
from nanochat.tokenizer import Tokenizer, split_pattern

NEVER: frozenset[int] = frozenset()  # no stop token


@pytest.fixture(scope="module")
def engine() -> Engine:
    tokenizer = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
    return Engine(random_model(depth=2), tokenizer, calculate)


@pytest.fixture
def scheduler(engine: Engine) -> Iterator[Scheduler]:
    with Scheduler(engine, slots=3, waiting=4) as scheduler:
        yield scheduler


def collected(handle: Handle) -> tuple[list[int], str, Event]:
    events = list(handle)
    return [i for e in events for i in e.ids], "".join(e.text for e in events), events[-1]


def test_replies_are_those_of_the_engine_alone(scheduler: Scheduler, engine: Engine) -> None:
    prompts = random_prompts([5, 60, 17, 33, 9, 21])
    handles = []
    for seed, prompt in enumerate(prompts):
        request = Request(prompt, 12, seed=seed, stop=NEVER)
        while True:
            try:
                handles.append(scheduler.submit(request))
                break
            except QueueFull as full:
                assert 1 <= full.retry_after_s <= 60
                time.sleep(0.01)
    for seed, (prompt, handle) in enumerate(zip(prompts, handles, strict=True)):
        ids, text, last = collected(handle)
        (alone,) = engine.generate_batch([prompt], max_tokens=12, seed=[seed], stop=())
        assert (ids, text, last.finish) == (alone.ids, alone.text, alone.finish)
        assert last.usage is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(prompt), 12)
    stats = scheduler.stats()
    assert (stats.running, stats.waiting, stats.tokens_reserved, stats.finished) == (0, 0, 0, 6)


def test_a_conversation_reads_only_what_is_new(scheduler: Scheduler) -> None:
    (prompt,) = random_prompts([60])
    ids, _, first = collected(scheduler.submit(Request(prompt, 20, GREEDY, stop=NEVER)))
    assert first.usage is not None and first.usage.cached_tokens == 0
    again = Request([*prompt, *ids, 7, 8, 9], 5, GREEDY, stop=NEVER)
    reply, _, second = collected(scheduler.submit(again))
    assert second.usage is not None and second.usage.cached_tokens == len(prompt) + len(ids) - 1
    (fresh,) = scheduler.engine.generate_batch([again.prompt], max_tokens=5, temperature=0, stop=())
    assert reply == fresh.ids


class Slow:
    """Holds the engine's thread at the start of each step until told to go on."""

    def __init__(self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.at_step = threading.Semaphore(0), threading.Semaphore(0)
        step = scheduler._batch.step

        def held() -> Any:
            self.at_step.release()
            self.go.acquire()
            return step()

        monkeypatch.setattr(scheduler._batch, "step", held)


def test_cancelled_within_one_step(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the queue, in the middle of a prompt, in the middle of a reply."""
    monkeypatch.setattr(scheduler._batch, "chunk", 8)
    slow = Slow(scheduler, monkeypatch)
    writer = scheduler.submit(Request(random_prompts([4])[0], 100, GREEDY, stop=NEVER))
    slow.at_step.acquire()
    readers = [scheduler.submit(Request([1 + i] * 150, 5, GREEDY)) for i in range(3)]
    for _ in range(2):
        slow.go.release()
        slow.at_step.acquire()
    assert readers[0].seat is not None and 0 < readers[0].seat.stored < 150
    assert readers[2].seat is None
    for handle in (writer, readers[0], readers[2]):
        scheduler.cancel(handle)
    slow.go.release()
    slow.at_step.acquire()  # the step under way is over, and the next one is being held
    stats = scheduler.stats()
    assert (stats.running, stats.waiting, stats.cancelled) == (1, 0, 3)
    assert all(handle.is_over for handle in (writer, readers[0], readers[2]))
    for _ in range(40):
        slow.go.release()
    assert [collected(h)[2].finish for h in (writer, *readers)] == [
        "cancelled", "cancelled", "length", "cancelled",
    ]  # fmt: skip


def test_the_queue_is_bounded(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(scheduler, monkeypatch)
    first = scheduler.submit(Request([1], 4, GREEDY, stop=NEVER))
    slow.at_step.acquire()
    others = [scheduler.submit(Request([1], 4, GREEDY, stop=NEVER)) for _ in range(4)]
    with pytest.raises(QueueFull, match="4 requests wait already"):
        scheduler.submit(Request([1], 4))
    assert (scheduler.stats().refused, scheduler.stats().submitted) == (1, 5)
    for _ in range(40):
        slow.go.release()
    assert {collected(handle)[2].finish for handle in (first, *others)} == {"length"}


def test_tokens_bound_what_runs(engine: Engine) -> None:
    with Scheduler(engine, slots=4, tokens=CONTEXT) as scheduler:
        seen: list[int] = []
        handles = [
            scheduler.submit(
                Request([i + 1] * 50, 50, GREEDY, stop=NEVER),
            )
            for i in range(3)
        ]
        while not all(handle.is_over for handle in handles):
            seen.append(scheduler.stats().tokens_reserved)
            time.sleep(0.001)  # else the engine's thread waits a minute for the lock and for its turn
        assert max(seen) <= CONTEXT
        assert {collected(handle)[2].finish for handle in handles} == {"length"}


def test_closing_ends_everything(engine: Engine) -> None:
    scheduler = Scheduler(engine, slots=1)
    handles = [scheduler.submit(Request([1], 150, GREEDY, stop=NEVER)) for _ in range(3)]
    scheduler.close()
    assert [collected(handle)[2].finish for handle in handles] == ["cancelled"] * 3
    with pytest.raises(Closed):
        scheduler.submit(Request([1], 1))


def test_who_closes_between_two_steps_leaves_nobody_waiting(engine: Engine) -> None:
    """`close` comes while the engine's thread tells another request that it was cancelled."""
    closers: list[threading.Thread] = []

    def close(_: Event) -> None:
        closers.append(threading.Thread(target=one.close))
        closers[0].start()
        while one._is_open:
            time.sleep(0.001)

    one, request = Scheduler(engine, slots=1), Request([1], 150, GREEDY, stop=NEVER)
    running = one.submit(request)
    with one._changed:
        gone, left = one.submit(request, close), one.submit(request)
        one.cancel(gone)
    assert [collected(handle)[2].finish for handle in (running, left)] == ["cancelled"] * 2
    closers[0].join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_engine_reaches_every_client(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise MemoryError

    monkeypatch.setattr(scheduler._batch, "step", broken)
    handle = scheduler.submit(Request([1], 1))
    assert collected(handle)[2].error == "the engine failed: MemoryError"
    with pytest.raises(Closed):
        while True:
            scheduler.submit(Request([1], 1))


def test_what_does_not_fit_is_refused_at_once(scheduler: Scheduler) -> None:
    with pytest.raises(UsageError, match=f"the prompt has {CONTEXT} tokens"):
        scheduler.submit(Request([1] * CONTEXT, 1))
    assert scheduler.stats().submitted == 0
