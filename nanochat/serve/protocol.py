"""uvicorn, less patient: slow, stalled and too many clients cannot hold it up, and a signal ends it cleanly.

What it is: `Connection`, uvicorn's HTTP connection with a limit on the time of a request's head and on the
time a client takes nothing of what was written; `Server`, which ends with exit code 0 on SIGINT and SIGTERM.
What it is not: HTTP itself (h11's). A body's time is the guard's. Run: `pytest tests/serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanochat.serve.pool import Pool

HEAD_S = 10.0  # from the first byte of a request, or the connection, to the end of its headers
IDLE_S = 75.0  # between two requests: longer than any Retry-After, or the next one may meet a closing door
STALL_S = 30.0  # that a client may leave us unable to write
HEAD_BYTES = 32 << 10
GRACE_S = 5.0  # for what runs when the server is told to end
SPARE_FILES = 64  # descriptors that connections leave to the rest of the process


class _Limit:
    """Cuts a connection `seconds` after `start`, unless `stop` comes first."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport, self._seconds = transport, seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._transport.abort)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Connection(H11Protocol):
    """One client. A time limit that passes ends the connection, and with it what it has asked for."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._stall = _Limit(transport, HEAD_S), _Limit(transport, STALL_S)
        self._head.start()
        if len(self.connections) > most_connections():
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._stall.stop()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._head.start()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._head.stop()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.stop()

    def timeout_keep_alive_handler(self) -> None:
        """Whatever it has not read by now, it will not read."""
        self.transport.abort()


def most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(16, soft - SPARE_FILES)


def allow_many_files() -> None:
    """A connection is a file; the usual soft limit of 1,024 is not enough for a thousand clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))


class Server(uvicorn.Server):
    """Ends when a signal comes or the pool fails; what runs may end before connections are cut."""

    def __init__(self, app: Any, pool: Pool) -> None:
        config = uvicorn.Config(
            app, http=Connection, ws="none", loop="asyncio", lifespan="on", log_level="warning",
            access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=5, backlog=2048, h11_max_incomplete_event_size=HEAD_BYTES,
        )  # fmt: skip
        super().__init__(config)
        self._pool = pool

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._pool.state == "failed"

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._pool.drain(GRACE_S)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        """As uvicorn does, but a signal that ended us cleanly is not raised again."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        try:
            for number in numbers:
                loop.add_signal_handler(number, self.handle_exit, number, None)
        except (RuntimeError, ValueError):  # not the main thread: whoever started us ends us
            yield
            return
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
