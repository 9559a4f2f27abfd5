"""A real server on a free port, in a thread, with a small model of random weights.

What it is: uvicorn with our connection class, the whole application, real workers and models. What it is not:
the program, whose workers are processes, not threads; `test_serve_process.py` starts that. Used by the tests
beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from test_engine import random_model

from nanochat.engine import Engine
from nanochat.request import GREEDY, Sampling
from nanochat.scheduler import Scheduler
from nanochat.serve import access, wire
from nanochat.serve.app import create_app
from nanochat.serve.guard import Rules
from nanochat.serve.model import Model, Tools
from nanochat.serve.pool import Pool
from nanochat.serve.protocol import Server
from nanochat.serve.worker import Worker
from nanochat.tokenizer import Tokenizer

LIMIT_S = 30.0


def toy_engine(tokenizer: Tokenizer, **options: Any) -> Engine:
    return Engine(random_model(depth=2, **options), tokenizer, Tools())


class Served:
    """`url`, a client `http`, and the parts behind them."""

    def __init__(
        self, engine: Engine, *, slots: int = 4, waiting: int = 64, workers: int = 1,
        token: str | None = None, sampling: Sampling = GREEDY,
    ) -> None:  # fmt: skip
        self.engine, self.waiting = engine, waiting
        pairs = [socket.socketpair() for _ in range(workers)]
        self._sockets = [ours for ours, _ in pairs]
        self.workers = [Worker(theirs, engine, slots, waiting) for _, theirs in pairs]
        self._threads = [threading.Thread(target=one.run, args=(wire.Frames(),)) for one in self.workers]
        config = engine.config
        tools = engine.rules.tool
        assert isinstance(tools, Tools)
        self.model = Model("toy", config.context, config.vocab_size, engine.rules, tools, sampling, waiting)
        self.listener = access.listen("127.0.0.1", 0)
        self.rules = Rules(access.names_of(self.listener, "127.0.0.1", ()), token, 256 << 10)
        self.pool = Pool()
        self.url = access.url(self.listener)
        self.address = self.listener.getsockname()
        self.server = Server(create_app(self.pool, self.rules, self._start), self.pool)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=LIMIT_S)
        self.opening = threading.Event()
        self._threads.append(threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}))

    async def _start(self, pool: Pool) -> None:
        self.loop = asyncio.get_running_loop()
        for ours in self._sockets:
            await pool.connect(ours)
        self._loading = asyncio.create_task(self._load(pool))

    async def _load(self, pool: Pool) -> None:
        await asyncio.to_thread(self.opening.wait)
        for index, (worker, link) in enumerate(zip(self.workers, pool.links, strict=True)):
            config, stats = self.engine.config, worker.scheduler.stats()
            said = ("cpu", "", 1, 0.0, config.context, config.vocab_size, "", "", self.waiting, stats)
            worker.connection.sendall(wire.encode(wire.Ready(*said)))
            await link.ready
            link.name = f"cpu/{index}"
        pool.open(self.model)

    def in_loop(self, function: Callable[[], Any]) -> Any:
        """What the event loop gets from it."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(LIMIT_S)

    @property
    def scheduler(self) -> Scheduler:
        return self.workers[0].scheduler

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        wait(lambda: self.server.started)

    def stop(self) -> None:
        self.opening.set()
        self.server.should_exit = True
        for thread in self._threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        self.http.close()

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.post(path, json={"model": "toy", **body}, **options)

    def idle(self) -> None:
        """Wait until nothing runs."""
        wait(lambda: all(s.running + s.waiting == 0 for _, s in self.in_loop(self.pool.stats)))


def wait(until: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.002)


@contextlib.contextmanager
def served(engine: Engine, *, is_open: bool = True, **options: Any) -> Iterator[Served]:
    one = Served(engine, **options)
    one.start()
    if is_open:
        one.opening.set()
        wait(lambda: one.pool.state == "ok")
    try:
        yield one
    finally:
        one.stop()


def chat_of(*texts: str, **fields: Any) -> dict[str, Any]:
    """A chat whose messages are the user's and the assistant's by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": messages, "max_tokens": 8, **fields}


class Held:
    """Holds an engine's thread at the start of each step until told to go on."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.go, self.at_step = threading.Semaphore(0), threading.Semaphore(0)
        self._batch, self._step = scheduler._batch, scheduler._batch.step

    def __enter__(self) -> Held:
        self._batch.step = self._held  # type: ignore[method-assign]
        return self

    def _held(self) -> Any:
        self.at_step.release()
        assert self.go.acquire(timeout=LIMIT_S)
        return self._step()

    def step(self) -> None:
        """One step; the next one is being held when this returns."""
        self.go.release()
        assert self.at_step.acquire(timeout=LIMIT_S)

    def __exit__(self, *_: object) -> None:
        self._batch.step = self._step  # type: ignore[method-assign]
        self.go.release(1000)
