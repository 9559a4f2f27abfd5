"""A hub on 127.0.0.1, as far as fetching needs one: commits, trees, HEAD, GET with Range; and faults.

It serves a folder laid out like the hub (`datasets/ORG/NAME/PATH`); files of 1 KB and more count as LFS. Any
other path below the folder is a plain address. `faults` maps a path to what goes wrong next, one a request.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
API = re.compile(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/revision/([^/]+)|/tree/([^/]+))?")
FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
LFS_BYTES = 1000


class Hub:
    """The served folder, what was asked of it, and what is to go wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.faults: dict[str, list[str]] = {}
        self.lock = threading.Lock()

    def put(self, path: str, content: bytes) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def fault(self, path: str) -> str:
        with self.lock:
            waiting = self.faults.get(path, [])
            return waiting.pop(0) if waiting else ""


def facts(file: Path, path: str) -> dict[str, Any]:
    content = file.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git}
    if len(content) >= LFS_BYTES:
        row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return row


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
        if match := API.fullmatch(path):
            return self.api(*match.groups())
        match = FILE.fullmatch(path)
        place = f"{match[1] or 'models'}/{match[2]}/{match[4]}" if match else path.lstrip("/")
        file = self.hub.folder / place
        if not file.is_file() or (match and match[3] not in ("main", COMMIT)):
            return self.send(404, b"not here", {})
        self.file(file, place, body, is_hub=bool(match))

    def api(self, kind: str, repo: str, revision: str | None, tree: str | None) -> None:
        base = self.hub.folder / kind / repo
        if not base.is_dir() or (revision or tree) not in (None, "main", COMMIT):
            return self.send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        files = [(p, p.relative_to(base).as_posix()) for p in sorted(base.rglob("*")) if p.is_file()]
        answer: Any = [facts(*file) for file in files]
        if tree is None:
            answer = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for _, name in files]}
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def file(self, file: Path, place: str, body: bool, is_hub: bool) -> None:
        content, known = file.read_bytes(), facts(file, place)
        etag = known.get("lfs", {}).get("oid", known["oid"])
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"} | (
            {"X-Repo-Commit": COMMIT} if is_hub else {}
        )
        status = 200
        fault = self.hub.fault(place) if body else ""
        if (wanted := self.headers.get("Range")) and body and fault != "no range":
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        if fault == "503":
            return self.send(503, b"busy", {})
        if fault == "html":
            content = b"<html>please log in</html>"
        if fault == "other bytes":
            content = bytes(255 - b for b in content)
        cut = len(content) // 2 if fault in ("cut", "die") else len(content)
        self.send(status, content if body else b"", headers, length=len(content), cut=cut)

    def send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        length: int | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[:cut])
            if cut is not None and cut < len(body):
                self.wfile.flush()
                self.close_connection = True


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """The hub, on a port of its own, until the block ends."""
    hub = Hub(folder)
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
