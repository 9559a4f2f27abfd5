"""An engine's process as the server sees it: what is on its way there, and what comes back.

What it is: `start`, which makes the process, and `Link`, the server's end of the wire, in the event loop and
without a thread. What it is not: a choice between engines (`pool.py`), or the other end (`worker.py`).
Run: `pytest tests/serve`.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nanochat.common import EXIT_FAULT
from nanochat.request import Request
from nanochat.scheduler import Event, QueueFull, Stats, wait_s
from nanochat.serve import wire

ROOT = Path(__file__).resolve().parent.parent.parent  # where this very package is found
END_S = 5.0  # that an engine has to end in before it is killed
LOOK_S = 0.02
GATHER_S = 0.004  # what several steps of a fast model bring meanwhile is read at once
Listener = Callable[[Event], None]


def start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that waits for its `wire.Load`, and the socket to it."""
    ours, theirs = socket.socketpair()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # Blocked in the child until it ignores them: it may not die of a Ctrl-C sooner than it has imported.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        with theirs:
            command = [sys.executable, "-m", "nanochat.serve.worker"]
            return subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), cwd=ROOT), ours
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Link(asyncio.Protocol):
    """One engine. Futures give None where it ended instead; `failure` says why, once it is closed."""

    def __init__(self, on_failure: Callable[[], None], process: subprocess.Popen[bytes] | None) -> None:
        """`process` is None where the other end is a thread. In the event loop."""
        loop = asyncio.get_running_loop()
        self.devices: asyncio.Future[int | None] = loop.create_future()
        self.ready: asyncio.Future[wire.Ready | None] = loop.create_future()
        self.failure: wire.Failure | None = None
        self.name = ""
        self.frames = 0  # that came
        self._on_failure, self._process = on_failure, process
        self._lost: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._is_closing = False
        self._found = wire.Frames()
        self._listeners: dict[int, Listener] = {}
        self._ids = itertools.count()
        self._stats: Stats | None = None
        self._submitted = self._refused = self._room = 0

    # ------------------------------------------------------------------ what the pool asks

    @property
    def load(self) -> int:
        """Requests that have not ended."""
        return len(self._listeners)

    @property
    def stats(self) -> Stats:
        """As of the last frame, and with what is on its way. Once the model is loaded, as what follows."""
        assert self._stats is not None
        waiting = max(0, self.load - self._stats.running)
        return replace(self._stats, waiting=waiting, submitted=self._submitted, refused=self._refused)

    def require_room(self) -> None:
        """QueueFull if no more may wait."""
        if self.load >= self._room:
            self._refused += 1
            stats, waiting = self.stats, self.load - self.stats.slots
            raise QueueFull(waiting, wait_s(stats.busy_s, stats.finished, waiting))

    def submit(self, request: Request, listener: Listener) -> int:
        """Its number. QueueFull if too many wait. `listener` gets its events."""
        self.require_room()
        id = next(self._ids)
        self._listeners[id] = listener
        self._submitted += 1
        self.send(wire.Submission(id, request))
        return id

    def cancel(self, id: int) -> None:
        """End a request before the next step. Too late is no error."""
        if id in self._listeners:
            self.send(wire.Cancellation(id))

    def send(self, message: wire.Message) -> None:
        """Without waiting: what may be on its way is bounded. Nothing, once the end has begun."""
        assert self._transport is not None
        if not self._is_closing and not self._transport.is_closing():
            self._transport.write(wire.encode(message))

    async def close(self) -> None:
        """Hang up, which ends what runs there; see that the process ends."""
        self._is_closing = self._is_closing or not self._lost.done()
        if self._transport is not None and not self._lost.done():
            self._transport.write_eof()
        await asyncio.wait([self._lost], timeout=END_S)
        if self._process is not None:
            if not self._lost.done():
                self._process.kill()
            await self._end(self._process)

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        end = asyncio.get_running_loop().time() + END_S
        while process.poll() is None and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(LOOK_S)
        code = process.returncode
        if code is None:
            process.kill()
        if not self._is_closing and self.failure is None:
            how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
            when = self.name or "while the model was loaded"
            self.failure = wire.Failure(EXIT_FAULT, f"error: an engine's process ended ({when}): {how}")

    # ------------------------------------------------------------------ what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._is_closing:
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        for message in self._found.feed(data):
            self.frames += 1
            if isinstance(message, wire.News):
                self._deliver(message)
            elif isinstance(message, wire.Devices):
                self.devices.set_result(message.count)
            elif isinstance(message, wire.Failure):
                self.failure = message
            elif isinstance(message, wire.Ready):
                self._stats, self._room = message.stats, message.stats.slots + message.waiting
                self.ready.set_result(message)
        if self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(GATHER_S, self._transport.resume_reading)

    def _deliver(self, news: wire.News) -> None:
        self._stats = news.stats
        for id, event in news.events:
            listener = self._listeners.pop(id) if event.is_last else self._listeners[id]
            if event.error is not None:
                self._on_failure()
            listener(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set_result(None)
        if not self._is_closing:
            self._on_failure()
        for future in (self.devices, self.ready):
            if not future.done():
                future.set_result(None)
        left, self._listeners = self._listeners, {}
        for listener in left.values():
            listener(Event([], "", error="the engine failed: its process ended"))
