"""What every request passes before it reaches a route, and every answer on its way out.

What it is: one ASGI middleware: the Host and Origin headers, the token, the size and the speed of a body, the
headers that tell browsers what not to do, counts of answers and a line in the log. What it is not: a judge of
a body's content (`schemas.py`). No prompt and no token gets into a log.
Run: `pytest tests/serve`.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.common import print0
from nanochat.serve.errors import APIError

BODY_S = 20.0  # for a whole body
MOST_DROPPED = 64 << 20  # bytes of a body too large that are read, so that the client hears the answer
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
    "img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OPEN = ("/", "/health", "/favicon.ico")  # and what is below /ui/: no token, as nothing private is there


@dataclass
class Rules:
    """What the guard asks for."""

    hosts: frozenset[str]
    token: str | None
    body_bytes: int
    answers: Counter[int] = field(default_factory=Counter)  # by status


class Guard:
    """Wraps the application. Refusals come from here in OpenAI's shape."""

    def __init__(self, app: ASGIApp, rules: Rules, require_room: Callable[[], None]) -> None:
        """`require_room` raises APIError if no more work is taken now: a no must cost next to nothing."""
        self.app, self.rules, self.require_room = app, rules, require_room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.rules.answers[status] += 1
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            try:
                self._admit(scope["path"], Headers(scope=scope))
                body = await asyncio.wait_for(self._body(receive), BODY_S)
            except (APIError, asyncio.TimeoutError) as error:
                await _refuse(scope, receive, sending, error)
            else:
                await self._pass(scope, _replay(body, receive), sending)
        finally:
            if scope["method"] == "POST" and (status < 400 or status >= 500):
                seconds = time.perf_counter() - start
                print0(f"{time.strftime('%H:%M:%S')} {scope['path']} {status} {seconds:.2f} s")

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "POST":
                self.require_room()
        except APIError as error:
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _admit(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if _name(host) not in self.rules.hosts:
            raise APIError(
                421, "the server does not answer to this Host; see --allow-host", "host_not_allowed"
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise APIError(403, "requests from pages of other origins are refused", "origin_not_allowed")
        if self.rules.token is None or path in OPEN or path.startswith("/ui/"):
            return
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        good = hmac.compare_digest(sent.strip().encode(), self.rules.token.encode())
        if scheme.lower() != "bearer" or not good:
            raise APIError(
                401, "a token is needed, that of the server's token file: send `Authorization: Bearer TOKEN`",
                "invalid_api_key",
            )  # fmt: skip

    async def _body(self, receive: Receive) -> bytes:
        """All of it, or an error; what is too large is dropped as it comes."""
        body, size, more = bytearray(), 0, True
        while more and size <= MOST_DROPPED:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self.rules.body_bytes:
                body += chunk
            more = message.get("more_body", False)
        if size > self.rules.body_bytes:
            limit = self.rules.body_bytes >> 10
            raise APIError(413, f"the body is larger than {limit} KiB", "request_too_large")
        return bytes(body)


def _name(host: str) -> str:
    """A Host header without its port: "[::1]:8000" is "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0] if "]" in host else host
    return host.partition(":")[0].rstrip(".")


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """The body in one piece, then what the server says: that the client has gone."""
    is_first = True

    async def replayed() -> Message:
        nonlocal is_first
        if is_first:
            is_first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


async def _refuse(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    """Answer and close: the rest of the body is not worth reading."""
    if not isinstance(error, APIError):
        error = APIError(408, f"the body did not come within {BODY_S:.0f} s", "request_timeout")
    response = error.response()
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
