"""What the server refuses before anybody looks into a body, and what it says to browsers; over real HTTP."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import Served, chat_of, served, wait

from nanochat.common import UsageError
from nanochat.engine import Engine
from nanochat.serve import access, pages

TOKEN = "t0ken-of-these-tests"


@pytest.fixture(scope="module")
def closed(engine: Engine) -> Iterator[Served]:
    """A server that asks for a token."""
    with served(engine, token=TOKEN) as one:
        yield one


def raw(one: Served, data: bytes) -> bytes:
    """What the server says to these bytes, until it hangs up or is silent."""
    with socket.create_connection(one.address, timeout=2) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost@evil.example"]
)
def test_other_names_are_refused(toy: Served, host: str) -> None:
    """A page whose name is made to point at 127.0.0.1 is not ours."""
    response = toy.http.get("/v1/models", headers={"Host": host})
    assert (response.status_code, response.json()["error"]["code"]) == (421, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost:1234", "LOCALHOST", "127.0.0.1", "[::1]:80"])
def test_own_names_are_answered(toy: Served, host: str) -> None:
    assert toy.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_pages_of_other_origins_are_refused(toy: Served, origin: str) -> None:
    response = toy.post("/v1/chat/completions", chat_of("a"), headers={"Origin": origin})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers


def test_the_own_page_is_answered(toy: Served) -> None:
    own = toy.post("/v1/chat/completions", chat_of("a"), headers={"Origin": toy.url})
    assert own.status_code == 200
    preflight = toy.http.options("/v1/chat/completions", headers={"Origin": toy.url})
    assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers


ROUTES = ["/v1/models", "/v1/models/toy", "/v1/chat/completions", "/v1/completions", "/chat/completions",
          "/metrics", "/stats", "/openapi.json", "/nothing", "/health/", "/ui"]  # fmt: skip


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
def test_without_the_token_there_is_nothing(closed: Served, sent: str) -> None:
    for path in ROUTES:
        for method in ("GET", "POST"):
            response = closed.http.request(method, path, headers={"Authorization": sent})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key"), path


def test_with_the_token_there_is_everything(closed: Served) -> None:
    assert closed.http.get("/v1/models").status_code == 200
    assert closed.post("/v1/chat/completions", chat_of("a")).status_code == 200
    paths = closed.http.get("/openapi.json").json()["paths"]
    assert paths.keys() >= {"/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/metrics"}
    assert all("422" not in o["responses"] for path in paths.values() for o in path.values())


def test_the_page_needs_no_token(closed: Served) -> None:
    for path, file in pages.files().items():
        response = closed.http.get(path, headers={"Authorization": ""})
        assert (response.status_code, response.content) == (200, file.body)
        assert response.headers["content-type"].startswith(file.media_type.partition(";")[0])
    assert closed.http.get("/health", headers={"Authorization": ""}).status_code == 200
    assert "/favicon.ico" in pages.files()


@pytest.mark.parametrize("path", ["/ui/../ui.html", "/ui/%2e%2e/gpt.py", "/ui//etc/passwd", "/ui/", "/docs"])
def test_other_files_are_not_there(toy: Served, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert raw(toy, head.encode()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nothing", "/favicon.ico"])
def test_every_answer_tells_browsers_what_not_to_do(toy: Served, path: str) -> None:
    headers = toy.http.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "require-trusted-types-for 'script'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.slow
def test_a_body_of_10_mb_is_refused(toy: Served) -> None:
    body = json.dumps(chat_of("x" * 10_000_000))
    response = toy.http.post("/v1/chat/completions", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    chunks = (b"x" * 65536 for _ in range(160))  # no Content-Length
    assert toy.http.post("/v1/chat/completions", content=chunks).status_code == 413


def test_what_is_no_http_ends_the_connection(toy: Served) -> None:
    for data in (b"\x16\x03\x01" + bytes(200) + b"\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000):
        assert b" 400 " in raw(toy, data).partition(b"\r\n")[0]


def test_logs_hold_no_prompt_and_no_token(closed: Served, capfd: pytest.CaptureFixture[str]) -> None:
    closed.post("/v1/chat/completions", chat_of("a secret of mine"))
    closed.post("/v1/chat/completions", chat_of("a secret of mine", temperature=-1))
    closed.http.get("/v1/models?secret", headers={"Authorization": f"Bearer {TOKEN}x"})
    wait(lambda: closed.rules.answers[400] >= 1)
    said = capfd.readouterr()
    assert "/v1/chat/completions 200" in said.out
    assert "secret" not in said.out + said.err and TOKEN not in said.out + said.err


def test_an_answer_comes_at_once(toy: Served) -> None:
    """With Nagle's algorithm its body would wait for the client's delayed acknowledgement, 40 ms."""
    took = []
    for _ in range(10):
        start = time.perf_counter()
        toy.http.get("/health")
        took.append(time.perf_counter() - start)
    assert min(took) < 0.02


# ----------------------------------------------------------------------------- slow clients


@pytest.mark.slow
@pytest.mark.parametrize("part", [b"", b"GET /health HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_ends_the_connection(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    monkeypatch.setattr("nanochat.serve.protocol.HEAD_S", 0.2)
    with served(engine) as one:
        start = time.monotonic()
        with socket.create_connection(one.address, timeout=5) as drip:
            drip.sendall(part)
            while time.monotonic() < start + 5:  # a byte now and then does not help
                time.sleep(0.05)
                try:
                    drip.sendall(part and b"x")
                    drip.settimeout(0.001)
                    if drip.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        assert 0.15 < time.monotonic() - start < 2
        wait(lambda: not one.server.server_state.connections)


@pytest.mark.slow
def test_a_second_head_is_limited_as_well(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.serve.protocol.HEAD_S", 0.2)
    with served(engine) as one, socket.create_connection(one.address, timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):  # head and body come apart
            answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /")
        assert connection.recv(1) == b""


@pytest.mark.slow
def test_a_body_that_does_not_come_is_a_408(toy: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.serve.guard.BODY_S", 0.1)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    assert raw(toy, head).startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_cut(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reply ends in the engine, and what waits for it goes."""
    monkeypatch.setattr("nanochat.serve.protocol.STALL_S", 0.2)
    with served(engine) as one, socket.socket() as client:
        one.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(one.address)
        fields = {"stream": True, "logprobs": True, "top_logprobs": 20, "n": 4, "max_tokens": 180}
        body = json.dumps(chat_of("a", **fields)).encode()
        head = f"POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        wait(lambda: one.scheduler.stats().submitted == 4)
        wait(lambda: not one.server.server_state.connections)
        one.idle()
        assert one.http.get("/health").status_code == 200


# ----------------------------------------------------------------------------- sockets and tokens


def test_a_port_is_taken_once(toy: Served) -> None:
    with pytest.raises(UsageError, match=r"--port \d+ is taken; choose another, or --port 0"):
        access.listen("127.0.0.1", toy.address[1])


@pytest.mark.slow
@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host}: .*127.0.0.1"):
        access.listen(host, 0)


@pytest.mark.slow
def test_who_needs_a_token() -> None:
    with access.listen("127.0.0.1", 0) as here, access.listen("0.0.0.0", 0) as everywhere:
        assert not access.needs_token(here, {})
        assert access.needs_token(here, {"SLURM_JOB_ID": "1"})
        assert access.needs_token(everywhere, {})
        assert access.names_of(here, "127.0.0.1", ("My.Name",)) == {
            "127.0.0.1",
            "localhost",
            "::1",
            "my.name",
        }
        assert socket.gethostname().lower() in access.names_of(everywhere, "0.0.0.0", ())
        environ = {"USER": "me", "SLURM_SUBMIT_HOST": "login1"}
        port, node = here.getsockname()[1], socket.gethostname()
        line = f"ssh -N -L {port}:127.0.0.1:{port} -J me@login1 me@{node}"
        assert access.ssh_line(here, environ) == line
        port = everywhere.getsockname()[1]
        assert access.ssh_line(everywhere, environ) == f"ssh -N -L {port}:{node}:{port} me@login1"
        subprocess.run(["sh", "-n", "-c", line], check=True)


def test_a_token_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a" / "token"
    token = access.read_token(path)
    assert len(token) >= 43 and access.read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o640)
    with pytest.raises(UsageError, match=f"for you alone: chmod 600 {path}"):
        access.read_token(path)


def test_servers_that_start_at_once_agree_on_a_token(tmp_path: Path) -> None:
    """None finds a token that another has only begun to write."""
    paths = [tmp_path / str(i) / "token" for i in range(100)]
    start = threading.Barrier(4, timeout=30)

    def server() -> list[str]:
        found = []
        for path in paths:
            start.wait()
            found.append(access.read_token(path))
        return found

    with ThreadPoolExecutor(4) as pool:
        first, *others = (job.result() for job in [pool.submit(server) for _ in range(4)])
    assert len(set(first)) == len(paths) and all(other == first for other in others)
    assert all(list(path.parent.iterdir()) == [path] for path in paths)


@pytest.mark.parametrize("content", ["", "short", "two words are no good token", "ü" * 20, "x" * 20 + "\x00"])
def test_a_poor_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="the token file"):
        access.read_token(path)
    with pytest.raises(UsageError, match="the token file"):
        access.read_token(tmp_path)  # a folder
