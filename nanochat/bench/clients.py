"""Many clients of a chat server at once: the load of `bench serve`, in a process of its own.

What it is: an HTTP client that costs next to nothing (one event loop, no coroutines, one search of each
answer), as it shares the machine with the server. Every client asks, reads its answer to the end and asks
again; told 429 or 503 it waits as long as Retry-After says. What it is not: a client for anything else.
Run: `python -m nanochat.bench.clients` with a `Plan` as JSON on stdin; `Tally` comes on stdout.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

TOKENS = re.compile(rb'"completion_tokens":(\d+)')
RETRY = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LEAST_RETRY_S, AGAIN_S = 1.0, 0.1


@dataclass(frozen=True)
class Plan:
    """What the clients do. Client i sends body i % len(bodies); after `seconds` nothing new is asked."""

    host: str
    port: int
    path: str
    bodies: list[str]
    clients: int
    seconds: float
    limit_s: float = 300.0  # for the answers that are under way then


@dataclass
class Tally:
    """What came of it. `seconds` from the first question to the last answer with tokens."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)  # answers that are not what they should be
    tokens: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def read(cls, text: bytes) -> Tally:
        """From what `main` printed."""
        found = json.loads(text)
        statuses = Counter({int(status): count for status, count in found.pop("statuses").items()})
        return cls(statuses, Counter(found.pop("faults")), **found)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add(self, status: int, tokens: int) -> None:
        self.statuses[status] += 1
        if tokens:
            self.tokens += tokens
            self.seconds = time.perf_counter() - self.started


class Client(asyncio.Protocol):
    """One connection, used again for each question while the server keeps it."""

    def __init__(self, plan: Plan, tally: Tally, number: int, end: float) -> None:
        self.plan, self.tally, self.end = plan, tally, end
        body = plan.bodies[number % len(plan.bodies)].encode()
        head = (
            f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.question = head.encode() + body
        self.answer = bytearray()
        self.length: int | None = None  # of the answer; 0: it ends with its last chunk
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.is_waiting = False  # for an answer

    async def run(self) -> None:
        """Until the plan's end and the answer that is under way then."""
        try:
            await asyncio.wait_for(
                self.over, self.end + self.plan.limit_s - asyncio.get_running_loop().time()
            )
        except asyncio.TimeoutError:
            self.tally.faults["no answer in time"] += 1
        if self.transport is not None:
            self.transport.abort()

    def ask(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self.end:
            self._finish()
        elif self.transport is None:
            self._connecting = loop.create_task(self._connect())
        else:
            self.is_waiting = True
            self.transport.write(self.question)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, self.plan.host, self.plan.port)
        except OSError as error:
            self.tally.faults[f"no connection: {error.strerror}"] += 1
            loop.call_later(AGAIN_S, self.ask)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if self.length is None:
            head = self.answer.find(b"\r\n\r\n") + 4
            if head < 4:
                return
            found = LENGTH.search(self.answer, 0, head)
            self.length = head + int(found[1]) if found else 0
        if len(self.answer) >= self.length if self.length else self.answer.endswith(b"\r\n0\r\n\r\n"):
            self._read(bytes(self.answer))

    def _read(self, answer: bytes) -> None:
        self.answer.clear()
        self.length, self.is_waiting = None, False
        status, tokens = int(answer[9:12]), TOKENS.search(answer)
        self.tally.add(status, int(tokens[1]) if tokens else 0)
        loop = asyncio.get_running_loop()
        if status == 200:
            if tokens is None or b'"error"' in answer:
                self.tally.faults["a broken answer"] += 1
            self.ask()
        elif (retry := RETRY.search(answer)) is not None:
            loop.call_later(max(LEAST_RETRY_S, int(retry[1])), self.ask)
        else:
            self.tally.faults[f"{status} without Retry-After"] += 1
            loop.call_later(LEAST_RETRY_S, self.ask)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.is_waiting and not self.over.done():
            self.is_waiting = False
            self.tally.faults["cut off"] += 1
            self.answer.clear()
            self.length = None
            asyncio.get_running_loop().call_later(AGAIN_S, self.ask)

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def load(plan: Plan) -> Tally:
    """All clients, from the first to the last."""
    tally, end = Tally(), asyncio.get_running_loop().time() + plan.seconds
    clients = [Client(plan, tally, number, end) for number in range(plan.clients)]
    for client in clients:
        client.ask()
    await asyncio.gather(*(client.run() for client in clients))
    return tally


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(json.dumps(vars(asyncio.run(load(Plan(**json.load(sys.stdin)))))))


if __name__ == "__main__":
    main()
