"""A queue before the running batch, and the one thread that runs it: what a server talks to.

What it is: `submit` from any thread, replies as events from the engine's thread, cancellation within one
step (in the queue, while a prompt is read, while a reply is written), a bounded queue that refuses by name.
What it is not: HTTP (that is the server's), or fair between users: first come, first served.

Run: `pytest tests/test_scheduler.py`.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nanochat.common import UsageError
from nanochat.request import Finish, Request, TokenLogprob, Usage

if TYPE_CHECKING:
    from nanochat.batch import Batch, Seat
    from nanochat.engine import Engine
    from nanochat.reply import Reply


FIRST_WAIT_S = 5.0  # a guess, before any request has ended


class QueueFull(Exception):
    """Too many requests wait; `retry_after_s` guesses when there is room."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests wait already; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Closed(Exception):
    """The scheduler takes no more requests: it was closed, or its engine failed."""


@dataclass(frozen=True)
class Event:
    """What a step brought. The last event of a request has `finish` and `usage`, or an `error`."""

    ids: list[int]
    text: str  # visible text; what may still become a stop string is held back
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of `ids`, if asked for
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)  # all of them, with the first event
    finish: Finish | None = None
    usage: Usage | None = None
    error: str | None = None

    @property
    def is_last(self) -> bool:
        return self.finish is not None or self.error is not None


Notify = Callable[[Event], None]


def wait_s(busy_s: float, finished: int, waiting: int) -> float:
    """How long a queue needs, as far as past requests tell, give or take a half: those who were refused
    together must not come back together. 1 to 60 s."""
    wait = busy_s / finished * waiting if finished else FIRST_WAIT_S
    return min(60.0, max(1.0, wait * random.uniform(0.5, 1.5)))


@dataclass(frozen=True)
class Stats:
    """Gauges now, and counters since the start."""

    running: int
    waiting: int
    slots: int
    tokens_reserved: int
    submitted: int
    finished: int
    cancelled: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    steps: int
    busy_s: float


class Handle:
    """A submitted request. Iterate over its events, unless `submit` was told whom to notify."""

    def __init__(self, reply: Reply, notify: Notify | None) -> None:
        self.reply, self.cost = reply, len(reply.request.prompt) + reply.room
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._notify = notify or self._events.put
        self.seat: Seat | None = None  # this and what follows belong to the engine's thread
        self.is_cancelled = False
        self.is_over = False
        self._told = [0, 0, 0]  # ids, log-probabilities, prompt's log-probabilities

    def __iter__(self) -> Iterator[Event]:
        """Events as they come, the last one included. Blocks; call once."""
        while True:
            event = self._events.get()
            yield event
            if event.is_last:
                return

    def tell(self, error: str | None = None) -> None:
        """Pass on what the reply got since the last time."""
        reply = self.reply
        ids, scores, prompt_scores = reply.ids, reply.logprobs, reply.prompt_logprobs
        new: tuple[list[int], list[TokenLogprob], list[TokenLogprob]]
        new = (ids[self._told[0] :], scores[self._told[1] :], prompt_scores[self._told[2] :])
        self._told = [len(ids), len(scores), len(prompt_scores)]
        finish = None if error else reply.finish
        self.is_over = bool(finish or error)
        usage = reply.usage if finish else None
        self._notify(Event(new[0], reply.piece, *new[1:], finish, usage, error))
        reply.piece = ""


class Scheduler:
    """At most `slots` requests run, and at most `tokens` tokens are promised to them; `waiting` wait."""

    def __init__(
        self, engine: Engine, slots: int, tokens: int | None = None, waiting: int = 256,
        after_step: Callable[[Stats], None] | None = None,
    ) -> None:  # fmt: skip
        """`tokens`: sum over running requests of prompt and longest reply (None: what the slots hold).

        `after_step` is called in the engine's thread when all events of a step are out, and when requests
        were cancelled or let in; the next step waits for it.
        """
        if slots < 1:
            raise UsageError(f"slots {slots} must be at least 1")
        self.engine, self.slots, self.most_waiting = engine, slots, waiting
        self.tokens = slots * engine.config.context if tokens is None else tokens
        if self.tokens < engine.config.context:
            raise UsageError(f"tokens {tokens} must be at least the context of {engine.config.context}")
        self._batch: Batch = engine.batch(slots, remember=True)
        self._after_step = after_step
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Handle] = deque()
        self._running: dict[int, Handle] = {}  # by the id of the reply
        self._reserved = 0
        self._is_open = True
        self._counts = dict.fromkeys(
            ("submitted", "finished", "cancelled", "refused", "prompt_tokens", "cached_tokens",
             "completion_tokens"), 0,
        )  # fmt: skip
        self._busy_s = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ from any thread

    def submit(self, request: Request, notify: Notify | None = None) -> Handle:
        """Queue a request. `notify` gets its events in the engine's thread, and must return at once.

        UsageError if it does not suit the model, QueueFull if too many wait, Closed after `close`.
        """
        handle = Handle(self.engine.reply(request, with_text=True), notify)
        with self._changed:
            if not self._is_open:
                raise Closed("the engine is closed")
            self._require_room()
            self._waiting.append(handle)
            self._counts["submitted"] += 1
            self._changed.notify()
        return handle

    def cancel(self, handle: Handle) -> None:
        """End a request before the next step; its last event says "cancelled". Too late is no error."""
        with self._changed:
            handle.is_cancelled = True
            self._changed.notify()

    def stats(self) -> Stats:
        with self._changed:
            return Stats(
                len(self._running), len(self._waiting), self.slots, self._reserved, **self._counts,
                steps=self._batch.steps, busy_s=self._busy_s,
            )  # fmt: skip

    def close(self) -> None:
        """Take no more requests, end those that wait or run as cancelled, and stop the thread."""
        with self._changed:
            self._is_open = False
            for handle in (*self._waiting, *self._running.values()):
                handle.is_cancelled = True
            self._changed.notify()
        self.join()

    def join(self) -> None:
        """Wait until the engine's thread has ended: after `close`, or when the engine has failed."""
        self._thread.join()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ the engine's thread

    def _run(self) -> None:
        try:
            while self._prepare():
                start = time.perf_counter()
                replies = self._batch.step()
                with self._changed:
                    self._busy_s += time.perf_counter() - start
                for reply in replies:
                    self._tell(self._running[id(reply)])
                self._report()
        except Exception as error:
            self._fail(error)
            raise

    def _prepare(self) -> bool:
        """Wait for work; take out what was cancelled, let in what there is room for. False = stop."""
        with self._changed:
            while self._is_open and not self._running and not self._waiting:
                self._changed.wait()
            gone = [h for h in (*self._waiting, *self._running.values()) if h.is_cancelled]
            self._waiting = deque(h for h in self._waiting if not h.is_cancelled)
            is_open = self._is_open  # with `gone`: who closes later is heard next time, and all are told
        for handle in gone:
            if handle.seat is not None:
                self._batch.leave(handle.seat)
            handle.reply.end("cancelled")
            self._tell(handle)
        with self._changed:
            joined = False
            while self._waiting and self._fits(self._waiting[0]):
                handle, joined = self._waiting.popleft(), True
                handle.seat = self._batch.join(handle.reply)
                self._running[id(handle.reply)] = handle
                self._reserved += handle.cost
        if gone or joined:
            self._report()
        return is_open

    def _report(self) -> None:
        if self._after_step is not None:
            self._after_step(self.stats())

    def _fits(self, handle: Handle) -> bool:
        return not self._batch.is_full and self._reserved + handle.cost <= self.tokens

    def _tell(self, handle: Handle) -> None:
        """Pass on what is new; a request that is over makes room first, so that its client sees the room."""
        reply, finish = handle.reply, handle.reply.finish
        if finish is not None:
            with self._changed:
                if self._running.pop(id(reply), None) is not None:
                    self._reserved -= handle.cost
                self._counts["cancelled" if finish == "cancelled" else "finished"] += 1
                for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
                    self._counts[name] += getattr(reply.usage, name)
        handle.tell()

    def _fail(self, error: Exception) -> None:
        """The engine broke: nobody waits for ever."""
        with self._changed:
            self._is_open = False
            left = [h for h in (*self._running.values(), *self._waiting) if not h.is_over]
            self._running.clear()
            self._waiting.clear()
            self._reserved = 0
        for handle in left:
            handle.tell(error=f"the engine failed: {type(error).__name__}")
        self._report()

    def _require_room(self) -> None:
        if len(self._waiting) >= self.most_waiting:
            self._counts["refused"] += 1
            waiting = len(self._waiting)
            raise QueueFull(waiting, wait_s(self._busy_s, self._counts["finished"], waiting))
