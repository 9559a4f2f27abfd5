"""An answer on its way to the client: as one JSON object, or as server-sent events while it is written.

What it is: the loop that takes what the engines bring, and ends them when the client goes. What it is not:
what an answer looks like (`chat.py`, `text.py`). Memory for a slow client is bounded: its connection is cut
when it takes nothing for half a minute (`protocol.py`), and until then at most its own reply waits. What
comes while a write waits goes out as one.

Run: `pytest tests/serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanochat.request import Request
from nanochat.scheduler import Event
from nanochat.serve.errors import APIError
from nanochat.serve.follow import Follower, Piece
from nanochat.serve.metrics import Times
from nanochat.serve.pool import Inbox

KEEP_ALIVE_S = 15.0
KEEP_ALIVE = b": the request waits or reads its prompt\n\n"


class Answer(Protocol):
    """How one of the two APIs writes."""

    @property
    def kind(self) -> str: ...
    @property
    def chunk_kind(self) -> str: ...
    @property
    def prefix(self) -> str: ...
    def opening(self, index: int) -> dict[str, Any] | None: ...
    def chunk(self, index: int, piece: Piece) -> dict[str, Any]: ...
    def whole(self, index: int, pieces: list[Piece]) -> dict[str, Any]: ...


@dataclass
class Exchange:
    """One HTTP request's replies, and how they are written."""

    requests: Sequence[Request]
    followers: Sequence[Follower]
    inbox: Inbox
    answer: Answer
    model_id: str
    times: Times
    include_usage: bool = False

    def __post_init__(self) -> None:
        self.id = f"{self.answer.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self._usage: dict[int, Event] = {}

    async def events(self, receive: Receive) -> AsyncGenerator[list[tuple[int, Event]], None]:
        """What the engines bring, until all is over; an empty list now and then if nothing comes.

        ClientDisconnect when the client has gone; however this ends, nothing goes on in an engine. APIError
        if the engine fails or the server closes.
        """
        watch = asyncio.create_task(_watch(receive, self.inbox))
        start, is_first = time.perf_counter(), True
        try:
            while not self.inbox.is_over:
                events = await self.inbox.next(KEEP_ALIVE_S)
                if self.inbox.is_gone:
                    raise ClientDisconnect
                if events and is_first:
                    is_first = False
                    self.times.first_token(time.perf_counter() - start)
                for index, event in events:
                    self._note(index, event)
                yield events
            self.times.whole(time.perf_counter() - start)
        finally:
            self.inbox.cancel()
            watch.cancel()

    def _note(self, index: int, event: Event) -> None:
        if event.error is not None:
            raise APIError(500, event.error, "engine_failed")
        if event.finish == "cancelled":
            raise APIError(503, "the server is closing", "closing", retry_after_s=2)
        if event.is_last:
            self._usage[index] = event

    @property
    def usage(self) -> dict[str, Any]:
        """Prompts count once, however many replies each has."""
        prompt = cached = completion = 0
        for index, event in self._usage.items():
            assert event.usage is not None
            completion += event.usage.completion_tokens
            if self.requests[index].sample == 0:
                prompt += event.usage.prompt_tokens
                cached += event.usage.cached_tokens
        return {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip

    async def whole(self, receive: Receive) -> dict[str, Any]:
        """The answer as one object."""
        pieces: list[list[Piece]] = [[] for _ in self.requests]
        async with contextlib.aclosing(self.events(receive)) as batches:
            async for events in batches:
                for index, event in events:
                    pieces[index] += self.followers[index].pieces(event)
        choices = [self.answer.whole(index, own) for index, own in enumerate(pieces)]
        return {**self._frame(self.answer.kind), "choices": choices, "usage": self.usage}

    async def frames(self, receive: Receive) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, as much at a time as there is."""
        openings = (self.answer.opening(index) for index in range(len(self.requests)))
        yield b"".join(self._chunk(opening) for opening in openings if opening is not None)
        try:
            async with contextlib.aclosing(self.events(receive)) as batches:
                async for events in batches:
                    yield b"".join(self._chunks(events)) if events else KEEP_ALIVE
        except APIError as error:
            yield _frame(error.body)
            return
        if self.include_usage:
            yield _frame({**self._frame(self.answer.chunk_kind), "choices": [], "usage": self.usage})
        yield b"data: [DONE]\n\n"

    def _chunks(self, events: Sequence[tuple[int, Event]]) -> Iterator[bytes]:
        for index, event in events:
            for piece in self.followers[index].pieces(event):
                yield self._chunk(self.answer.chunk(index, piece))

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        body = {**self._frame(self.answer.chunk_kind), "choices": [choice]}
        return _frame({**body, "usage": None} if self.include_usage else body)

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model_id}


def _frame(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, separators=(',', ':'), allow_nan=False)}\n\n".encode()


async def _watch(receive: Receive, inbox: Inbox) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.leave()


class EventStream(Response):
    """An `Exchange` as server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, exchange: Exchange, headers: dict[str, str]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self.exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with contextlib.suppress(ClientDisconnect):
            async with contextlib.aclosing(self.exchange.frames(receive)) as frames:
                async for frame in frames:
                    if frame:
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
