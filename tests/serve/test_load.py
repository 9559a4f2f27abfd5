"""The server under more than it can take: overload, clients that leave, slow readers, bodies too large.

The short form of `python -m scripts.bench serve`, with a model of a few steps, and what that cannot see: that
a slot is free after the very step in which its client left.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from served import LIMIT_S, Held, Served, chat_of, served, wait
from toy import make_world, options, run

from nanochat.bench import serve as bench
from nanochat.engine import Engine
from nanochat.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
SECONDS, CLIENTS, SLOTS = 10.0, 100, 16
LEAVERS, AT_ONCE = 1000, 100
BODIES, BODY_BYTES = 40, 10_000_000


@contextlib.contextmanager
def memory() -> Iterator[list[int]]:
    """[growth of this process at its highest, in bytes] when the block is over."""
    process, is_over, found = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not is_over.wait(0.01):
            found[0] = max(found[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def ask(one: Served, body: bytes, most_unread: int | None = None) -> socket.socket:
    """A connection with a question on it; the kernel takes about `most_unread` bytes of the answer."""
    connection = socket.socket()
    connection.settimeout(LIMIT_S)
    if most_unread is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, most_unread)
    connection.connect(one.address)
    head = f"POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
    connection.sendall(body)
    return connection


def stream_of(**fields: object) -> bytes:
    return json.dumps(chat_of("a", stream=True, ignore_eos=True, **fields)).encode()


def test_overload(tmp_path: Path) -> None:
    """The program; a hundred clients where 16 run and 32 wait get answers, or 429, and nothing else."""
    make_world(tmp_path)
    shape = ("--steps", "1", "--context", "256", "--total-batch-tokens", "512")
    assert run("base", options("base", tmp_path, tmp_path, *shape), tmp_path / "log") == 0
    tokenizer = Tokenizer.load(tmp_path / "tok")
    prompts = bench.texts(tokenizer, bench.PROMPT, CLIENTS)
    assert {len(bench.prompt_of(tokenizer, prompt)) for prompt in prompts} == {bench.PROMPT}
    words = ["--preset", "tiny", "--source", "base", "--base-dir", str(tmp_path), "--device", "cpu"]
    with bench.started(
        [*words, "--threads", "1", "--slots", str(SLOTS), "--waiting", str(2 * SLOTS)]
    ) as server:
        for stream in (False, True):
            seen = server.load(bench.bodies("base_tiny", prompts, stream), CLIENTS, SECONDS / 2)
            assert bench.missed(seen) == []
            assert seen.tally.statuses[200] > CLIENTS and seen.tally.statuses[429] > 0
            assert seen.tally.tokens == bench.NEW * seen.tally.statuses[200]
        stats = server.get("/stats")["workers"][0]
        assert (stats["running"], stats["waiting"], stats["cancelled"]) == (0, 0, 0)


def test_a_thousand_clients_leave(engine: Engine) -> None:
    """In the queue, at the prompt, in the middle: after the step that is under way nothing runs."""
    rng = random.Random(0)
    with served(engine, slots=64, waiting=AT_ONCE) as one:
        expected = one.post("/chat/completions", chat_of("a", seed=1)).json()["choices"]
        for _ in range(LEAVERS // AT_ONCE):
            come_and_leave(one, rng.randrange(4))
        stats = one.scheduler.stats()
        assert (stats.cancelled, stats.tokens_reserved) == (LEAVERS, 0)
        wait(lambda: len(one.server.server_state.connections) <= 1)
        assert one.post("/chat/completions", chat_of("a", seed=1)).json()["choices"] == expected


def come_and_leave(one: Served, steps: int) -> None:
    scheduler = one.scheduler
    submitted = scheduler.stats().submitted + AT_ONCE
    with Held(scheduler) as held:
        clients = [ask(one, stream_of(max_tokens=150)) for _ in range(AT_ONCE)]
        wait(lambda: scheduler.stats().submitted == submitted)
        assert held.at_step.acquire(timeout=LIMIT_S)
        for _ in range(steps):
            held.step()
        for client in clients:
            client.close()
        wait(lambda: all(h.is_cancelled for h in (*scheduler._running.values(), *scheduler._waiting)))
        before = scheduler.stats().steps
        held.go.release()
        one.idle()
        assert scheduler.stats().steps == before + 1


def test_slow_readers_are_bounded_and_hold_nobody_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.serve.protocol.STALL_S", 1.0)
    body = stream_of(n=4, max_tokens=180, logprobs=True, top_logprobs=20)
    with served(engine, slots=16) as one, memory() as growth, contextlib.ExitStack() as stack:
        one.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for _ in range(12):
            stack.enter_context(ask(one, body, 4096))
        for _ in range(4):
            reply = one.post("/chat/completions", chat_of("b", ignore_eos=True)).json()
            assert reply["usage"]["completion_tokens"] == 8
            start = time.monotonic()
            assert one.http.get("/health").status_code == 200
            assert time.monotonic() - start < 1
        one.idle()
        wait(lambda: len(one.server.server_state.connections) <= 1)
    assert growth[0] < 100e6, growth


def test_large_bodies_are_not_kept(engine: Engine) -> None:
    """400 MB at once, all refused."""
    body = b"x" * BODY_BYTES

    def send(_: int) -> bytes:
        with ask(one, body) as connection:
            return connection.recv(12)

    with served(engine) as one, memory() as growth, ThreadPoolExecutor(BODIES) as pool:
        assert set(pool.map(send, range(BODIES))) == {b"HTTP/1.1 413"}
    assert growth[0] < 100e6, growth
