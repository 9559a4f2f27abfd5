"""Servers for the tests of the page: the real one, a proxy that cuts bytes, one that says what it is told.

What it is: `toy_server` (the whole application, as in the tests of the server, `tests/serve/served.py`),
`Proxy` (TCP; a few bytes at a time, or none any more), `Scripted` (the page under the real policy, with
replies and errors that no model would give). What it is not: the program (`scripts/chat_web.py`).
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from served import Served, served, toy_engine

from nanochat.request import Sampling
from nanochat.serve import guard, pages
from nanochat.tokenizer import Tokenizer


@contextlib.contextmanager
def toy_server(tokenizer: Tokenizer, *, context: int, **options: Any) -> Iterator[Served]:
    """The real server with a model of random weights that never says the same twice."""
    with served(toy_engine(tokenizer, context=context), sampling=Sampling(), waiting=16, **options) as one:
        yield one


@contextlib.contextmanager
def slowed(one: Served, step_s: float) -> Iterator[None]:
    """A model of random weights is fast; a person who stops it is not."""
    batch, step = one.scheduler._batch, one.scheduler._batch.step
    batch.step = lambda: (time.sleep(step_s), step())[1]  # type: ignore[method-assign]
    try:
        yield
    finally:
        batch.step = step  # type: ignore[method-assign]


class Proxy:
    """Passes bytes to `port`, back in pieces of `size`, `pause_s` apart; `cut()` ends all connections."""

    def __init__(self, port: int, size: int) -> None:
        self.target, self.size = port, size
        self.sockets: list[socket.socket] = []
        self.is_cut, self.pause_s = False, 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets += [client, server]
                for pair in ((client, server, 1 << 16), (server, client, self.size)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, size: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                for at in range(0, len(data), size):
                    sink.sendall(data[at : at + size])
                    time.sleep(self.pause_s)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.cut()
        self.listener.close()


Answer = tuple[int, dict[str, str], Any]  # status, headers, body: JSON, or a list of deltas to stream


class Scripted(http.server.ThreadingHTTPServer):
    """`answer(body)` is what a chat gets; the page comes as the real server sends it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answer: Callable[[dict[str, Any]], Answer] = lambda body: (200, {}, [{"content": "Yes."}])
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.files = pages.files()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Scripted

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**guard.HEADERS, "Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.path == "/v1/models":
            entry = {"id": "scripted", "context_length": 4096, "tools": ["calculator"]}
            self._send(200, "application/json", json.dumps({"data": [entry]}).encode(), {})
        elif file := self.server.files.get(self.path):
            self._send(200, file.media_type, file.body, {})
        else:
            self._send(404, "application/json", b"{}", {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        status, headers, answer = self.server.answer(body)
        if not isinstance(answer, list):
            return self._send(status, "application/json", json.dumps(answer).encode(), headers)
        frames = [{"choices": [{"delta": delta}]} for delta in answer]
        frames.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        text = "".join(f"data: {json.dumps(frame, ensure_ascii=False)}\n\n" for frame in frames)
        self._send(status, "text/event-stream", f"{text}data: [DONE]\n\n".encode(), headers)
