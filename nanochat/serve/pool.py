"""The engines behind the server: one scheduler a device, and the way of its events into the event loop.

What it is: `Pool`, which gives a request to the engine with the least to do; `Inbox`, where the event loop
finds what the engines' threads have brought for one HTTP request. What it is not: HTTP. An event costs the
loop no wake-up of its own: what several steps and requests bring within `GATHER_S` comes at once.

Run: `pytest tests/serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nanochat.request import Request
from nanochat.scheduler import Closed, Event, Handle, QueueFull, Scheduler, Stats
from nanochat.serve.errors import APIError

if TYPE_CHECKING:
    from nanochat.serve.model import Model

State = Literal["loading", "ok", "closing", "failed"]
GATHER_S = 0.004
LOADING_RETRY_S = 2


class Inbox:
    """Events of the requests that belong to one HTTP request, as (index, event)."""

    def __init__(self) -> None:
        self.handles: list[tuple[Scheduler, Handle]] = []
        self.is_gone = False  # the client has left
        self._items: list[tuple[int, Event]] = []
        self._over: set[int] = set()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        return len(self._over) == len(self.handles)

    def add(self, index: int, event: Event) -> None:
        self._items.append((index, event))
        if event.is_last:
            self._over.add(index)
        self._wake()

    def leave(self) -> None:
        """The client has gone."""
        self.is_gone = True
        self._wake()

    async def next(self, limit_s: float) -> list[tuple[int, Event]]:
        """What has come; nothing if nothing came in `limit_s` or the client has gone."""
        if not self._items and not self.is_gone:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(limit_s, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        items, self._items = self._items, []
        return items

    def cancel(self) -> None:
        """End what still runs; within one step its slots are free."""
        for index, (scheduler, handle) in enumerate(self.handles):
            if index not in self._over:
                scheduler.cancel(handle)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Post:
    """Carries events from the engines' threads into the loop, in batches."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[tuple[Inbox, int, Event]] = deque()
        self._is_rung = False
        self.rings = 0

    def put(self, inbox: Inbox, index: int, event: Event) -> None:
        """From any thread."""
        self._items.append((inbox, index, event))
        if not self._is_rung:
            self._is_rung = True
            self.rings += 1
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
                self._loop.call_soon_threadsafe(self._loop.call_later, GATHER_S, self._deliver)

    def _deliver(self) -> None:
        self._is_rung = False  # before the items: what comes from now on rings again
        while self._items:
            inbox, index, event = self._items.popleft()
            inbox.add(index, event)


@dataclass(frozen=True)
class Worker:
    """A copy of the model on a device."""

    device: str
    scheduler: Scheduler


class Pool:
    """What the routes talk to. It is "loading" until `open`, "closing" from `drain` on."""

    def __init__(self) -> None:
        self.state: State = "loading"
        self.workers: Sequence[Worker] = ()
        self._model: Model | None = None
        self._post: Post | None = None

    def open(self, model: Model, workers: Sequence[Worker]) -> None:
        """Serve from now on. In the event loop."""
        self._post = Post(asyncio.get_running_loop())
        self._model, self.workers = model, workers
        if self.state == "loading":
            self.state = "ok"

    @property
    def model(self) -> Model:
        """APIError 503 while there is none."""
        if self._model is None or self.state != "ok":
            raise self._unavailable()
        return self._model

    def require_room(self) -> None:
        """APIError if `submit` would refuse any request now: 503, or 429 with a full queue."""
        if self._model is None or self.state != "ok":
            raise self._unavailable()
        try:
            self._least_loaded().require_room()
        except QueueFull as full:
            raise _refused(full) from full

    def submit(self, requests: Sequence[Request]) -> Inbox:
        """Queue the requests of one HTTP request, all or none: APIError 429 if too many wait."""
        inbox, scheduler = Inbox(), self.workers[0].scheduler
        try:
            for index, request in enumerate(requests):
                if request.sample == 0:  # the samples of a prompt share its reading
                    scheduler = self._least_loaded()
                handle = scheduler.submit(request, self._notify(inbox, index))
                inbox.handles.append((scheduler, handle))
        except QueueFull as full:
            inbox.cancel()
            raise _refused(full) from full
        except Closed as closed:
            inbox.cancel()
            if self.state == "ok":
                self.state = "failed"
            raise self._unavailable() from closed
        return inbox

    def _least_loaded(self) -> Scheduler:
        if len(self.workers) == 1:
            return self.workers[0].scheduler
        return min((worker.scheduler for worker in self.workers), key=_load)

    def stats(self) -> list[tuple[str, Stats]]:
        return [(worker.device, worker.scheduler.stats()) for worker in self.workers]

    @property
    def rings(self) -> int:
        """Wake-ups of the event loop by engines."""
        return self._post.rings if self._post else 0

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, give what runs a moment to end, then end it."""
        if self.state != "failed":
            self.state = "closing"
        end = asyncio.get_running_loop().time() + grace_s
        while asyncio.get_running_loop().time() < end and any(_load(w.scheduler) > 0 for w in self.workers):
            await asyncio.sleep(0.05)
        for worker in self.workers:
            await asyncio.to_thread(worker.scheduler.close)

    def _notify(self, inbox: Inbox, index: int) -> _Notify:
        assert self._post is not None
        return _Notify(self, self._post, inbox, index)

    def _unavailable(self) -> APIError:
        words = {"loading": "the model is being loaded", "closing": "the server is closing"}
        text = words.get(self.state, "the engine has failed; see the server's log")
        return APIError(503, text, self.state, retry_after_s=LOADING_RETRY_S)


class _Notify:
    """Called in an engine's thread with each event of one request."""

    def __init__(self, pool: Pool, post: Post, inbox: Inbox, index: int) -> None:
        self._pool, self._post, self._inbox, self._index = pool, post, inbox, index

    def __call__(self, event: Event) -> None:
        if event.error is not None:
            self._pool.state = "failed"
        self._post.put(self._inbox, self._index, event)


def _refused(full: QueueFull) -> APIError:
    return APIError(429, str(full), "queue_full", retry_after_s=full.retry_after_s)


def _load(scheduler: Scheduler) -> int:
    stats = scheduler.stats()
    return stats.running + stats.waiting
