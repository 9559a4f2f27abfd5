"""The engines behind the server: who gets a request, and where its events wait.

What it is: `Pool`, which gives a request to the engine with the least to do, each a process of its own
(`link.py`); `Inbox`, where the events of one HTTP request lie until it takes them: what comes meanwhile comes
at once. What it is not: HTTP. All of it belongs to the event loop.

Run: `pytest tests/serve`.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nanochat.request import Request
from nanochat.scheduler import Event, QueueFull, Stats
from nanochat.serve.errors import APIError
from nanochat.serve.link import Link
from nanochat.serve.wire import Failure

if TYPE_CHECKING:
    from nanochat.serve.model import Model

State = Literal["loading", "ok", "closing", "failed"]
LOADING_RETRY_S = 2
DRAIN_LOOK_S = 0.05


class Inbox:
    """Events of the requests that belong to one HTTP request, as (index, event)."""

    def __init__(self) -> None:
        self.sent: list[tuple[Link, int]] = []
        self.is_gone = False  # the client has left
        self._items: list[tuple[int, Event]] = []
        self._over: set[int] = set()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        return len(self._over) == len(self.sent)

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
        for index, (link, id) in enumerate(self.sent):
            if index not in self._over:
                link.cancel(id)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Pool:
    """What the routes talk to. It is "loading" until `open`, "closing" from `drain` on."""

    def __init__(self) -> None:
        self.state: State = "loading"
        self.links: list[Link] = []
        self._model: Model | None = None

    async def connect(self, ours: socket.socket, process: subprocess.Popen[bytes] | None = None) -> Link:
        """An engine more, over a socket that leads to it."""
        link = Link(self.fail, process)
        self.links.append(link)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        return link

    def open(self, model: Model) -> None:
        """Serve from now on: all engines are ready."""
        self._model = model
        if self.state == "loading":
            self.state = "ok"

    def fail(self) -> None:
        """An engine has failed: the server ends."""
        self.state = "failed"

    @property
    def failure(self) -> Failure | None:
        """Why an engine ended by itself; known when all are closed."""
        return next((link.failure for link in self.links if link.failure is not None), None)

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
        """Queue the requests of one HTTP request, all or none.

        UsageError if one does not suit the model, APIError 429 if too many wait.
        """
        model, inbox, link = self.model, Inbox(), self.links[0]
        for request in requests:
            request.check(model.context, model.vocab_size)
        try:
            for index, request in enumerate(requests):
                if request.sample == 0:  # the samples of a prompt share its reading
                    link = self._least_loaded()
                inbox.sent.append((link, link.submit(request, functools.partial(inbox.add, index))))
        except QueueFull as full:
            inbox.cancel()
            raise _refused(full) from full
        return inbox

    def _least_loaded(self) -> Link:
        return min(self.links, key=lambda link: link.load)

    def stats(self) -> list[tuple[str, Stats]]:
        """Of each engine; of none before all are ready."""
        return [(link.name, link.stats) for link in self.links] if self._model is not None else []

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, give what runs a moment to end, then end it, and the engines."""
        if self.state != "failed":
            self.state = "closing"
        end = asyncio.get_running_loop().time() + grace_s
        while asyncio.get_running_loop().time() < end and any(link.load for link in self.links):
            await asyncio.sleep(DRAIN_LOOK_S)
        await asyncio.gather(*(link.close() for link in self.links))

    def _unavailable(self) -> APIError:
        words = {"loading": "the model is being loaded", "closing": "the server is closing"}
        text = words.get(self.state, "the engine has failed; see the server's log")
        return APIError(503, text, self.state, retry_after_s=LOADING_RETRY_S)


def _refused(full: QueueFull) -> APIError:
    return APIError(429, str(full), "queue_full", retry_after_s=full.retry_after_s)
