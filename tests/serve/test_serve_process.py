"""The program itself, as processes: what it refuses before it loads, how it ends, what others see of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from served import LIMIT_S, chat_of, wait
from toy import make_world, options, run

pytestmark = pytest.mark.slow
START_S = 120.0  # two engines import torch on a machine that has other work
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with a model of a few steps."""
    world, base = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("base")
    make_world(world)
    code = run("base", options("base", world, base, "--steps", "1"), base / "log")
    assert code == 0, (base / "log").read_text()
    return base


PROGRAM = ("-m", "scripts.chat_web")
WITHOUT_TORCH = ("-c", "import runpy, sys; sys.modules['torch'] = None; "
                 "runpy.run_module('scripts.chat_web', run_name='__main__', alter_sys=True)")  # fmt: skip


def command(base: Path, *words: str, program: tuple[str, str] = PROGRAM) -> list[str]:
    return [
        sys.executable, *program, "--preset", "tiny", "--source", "base", "--device", "cpu",
        "--base-dir", str(base), *([] if "--port" in words else ["--port", "0"]), *words,
    ]  # fmt: skip


def refused(base: Path, *words: str) -> str:
    done = subprocess.run(
        command(base, *words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=START_S
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


class Program:
    """chat_web, started; `url` is what it prints."""

    def __init__(
        self, base: Path, log: Path, *words: str, program: tuple[str, str] = PROGRAM, **variables: str
    ) -> None:
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command(base, *words, program=program), cwd=ROOT, stdout=output, stderr=output,
                env=os.environ | variables, start_new_session=True,
            )  # fmt: skip
        wait(lambda: "listening on" in self.said or self.process.poll() is not None)
        self.url = self.said.split("listening on ")[1].split(",")[0]

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> None:
        def is_ready() -> bool:
            try:
                return httpx.get(f"{self.url}/health").status_code == 200
            except httpx.TransportError:
                return False

        wait(is_ready, START_S)

    def engines(self) -> list[psutil.Process]:
        """Those that have begun: a child of this moment has its parent's command still."""
        found = psutil.Process(self.process.pid).children()
        return [one for one in found if one.cmdline()[-1:] == ["nanochat.serve.worker"]]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes programs, which are gone after the test."""
    found: list[Program] = []

    def start(base: Path, *words: str, **options: Any) -> Program:
        found.append(Program(base, tmp_path / f"log{len(found)}", *words, **options))
        return found[-1]

    yield start
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)


def test_mistakes_are_told_before_the_model_is_loaded(trained: Path, tmp_path: Path) -> None:
    said = refused(tmp_path)
    assert "no checkpoint of stage base of run tiny" in said and "scripts/local_cpu_train.sh" in said
    assert "there are: base_tiny" in refused(trained, "--run", "other")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "is taken" in refused(trained, "--port", port)
    assert "--host 192.0.2.1" in refused(trained, "--host", "192.0.2.1")
    (tmp_path / "token").write_text("x" * 40)
    (tmp_path / "token").chmod(0o644)
    assert "chmod 600" in refused(trained, "--token-file", str(tmp_path / "token"))


def test_a_model_that_cannot_be_loaded_ends_it(trained: Path, tmp_path: Path) -> None:
    """The engine's message is the server's, once, however many engines say it."""
    base = tmp_path / "base"
    shutil.copytree(trained, base)
    (weights,) = base.glob("base_tiny/checkpoints/step_*/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    said = refused(base, "--workers", "2")
    assert said.count("error: ") == 1 and "verifies; restore one, or start again" in said


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def send(one: Program, number: signal.Signals, everybody: bool) -> None:
    """To the server, or to its whole group, as a terminal's Ctrl-C and Slurm do."""
    if everybody:
        os.killpg(one.process.pid, number)
    else:
        one.process.send_signal(number)


@pytest.mark.parametrize("everybody", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(
    trained: Path, start: Start, number: signal.Signals, everybody: bool
) -> None:
    """A reply under way comes to its end, and the exit code is 0."""
    one = start(trained)
    one.ready()
    (engine,) = one.engines()
    body = chat_of("a", stream=True, max_tokens=20)
    engine.suspend()
    with httpx.stream("POST", f"{one.url}/chat/completions", json=body, timeout=LIMIT_S) as response:
        send(one, number, everybody)
        engine.resume()
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert one.process.wait(LIMIT_S) == 0
    assert is_gone(engine)
    assert "Traceback" not in one.said and "error" not in one.said


@pytest.mark.parametrize("delay", range(4))
def test_a_signal_while_the_model_loads_ends_it_cleanly(trained: Path, start: Start, delay: int) -> None:
    """At whatever point of its start the engine's process is."""
    one = start(trained, "--workers", "2")
    wait(lambda: len(one.engines()) == 2)
    with contextlib.suppress(subprocess.TimeoutExpired):
        one.process.wait(0.1 * delay)
    send(one, signal.SIGTERM, True)
    assert one.process.wait(LIMIT_S) == 0
    assert "Traceback" not in one.said and "error" not in one.said


def test_an_engine_that_dies_ends_the_server(trained: Path, start: Start) -> None:
    """Its requests get an error, new ones 503; another engine, which hangs, is not waited for for ever."""
    one = start(trained, "--workers", "2")
    one.ready()
    engines = one.engines()
    for engine in engines:
        engine.suspend()
    ask = {"url": f"{one.url}/chat/completions", "json": chat_of("a"), "timeout": LIMIT_S}
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(httpx.post, **ask) for _ in engines]
        stats = f"{one.url}/stats"
        wait(lambda: [w["waiting"] for w in httpx.get(stats).json()["workers"]] == [1, 1])
        engines[0].kill()
        wait(lambda: any(answer.done() for answer in asked))
        late = httpx.post(**ask)
        answers = [answer.result().json()["error"]["code"] for answer in asked]
    assert (late.status_code, late.json()["error"]["code"]) == (503, "failed") and late.headers["retry-after"]
    assert answers == ["engine_failed"] * 2
    assert one.process.wait(LIMIT_S) == 1
    assert all(map(is_gone, engines))
    assert "an engine's process ended (cpu/0): killed by SIGKILL" in one.said
    assert "Traceback" not in one.said


def test_an_idle_engine_that_dies_ends_the_server(trained: Path, start: Start) -> None:
    one = start(trained)
    one.ready()
    one.engines()[0].kill()
    assert one.process.wait(LIMIT_S) == 1 and "killed by SIGKILL" in one.said


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_server_that_is_killed_leaves_no_engine(trained: Path, start: Start, is_ready: bool) -> None:
    one = start(trained, "--workers", "2")
    wait(lambda: len(one.engines()) == 2)
    if is_ready:
        one.ready()
    engines = one.engines()
    one.process.kill()
    wait(lambda: all(map(is_gone, engines)), START_S)
    assert "Traceback" not in one.said


def test_the_server_has_no_torch(trained: Path, start: Start) -> None:
    """It cannot import it, at the start or late, and yet answers of each kind come."""
    one = start(trained, program=WITHOUT_TORCH)
    one.ready()
    assert httpx.post(f"{one.url}/chat/completions", json=chat_of("a", logprobs=True)).status_code == 200
    for path in ("v1/models", "stats", "metrics", "openapi.json"):
        assert httpx.get(f"{one.url}/{path}").status_code == 200
    assert one.end() == 0 and "Traceback" not in one.said


def test_under_slurm_a_token_is_always_needed(trained: Path, tmp_path: Path, start: Start) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in trained.iterdir():
        (base / name.name).symlink_to(name)
    one = start(base, SLURM_JOB_ID="7", SLURM_SUBMIT_HOST="login1")
    one.ready()
    file = base / "serve" / "token"
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{one.url}/v1/models").status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{one.url}/v1/models", headers=headers).status_code == 200
    assert "ssh -N -L" in one.said and "@login1" in one.said and str(file) in one.said
    assert token not in one.said
    for pid in (one.process.pid, *(engine.pid for engine in one.engines())):
        for name in ("cmdline", "environ"):
            assert token not in Path(f"/proc/{pid}/{name}").read_text()
    assert one.end() == 0


def test_each_engine_has_its_copy(trained: Path, start: Start) -> None:
    one = start(trained, "--workers", "2", "--dtype", "float32")
    one.ready()
    (model,) = httpx.get(f"{one.url}/v1/models").json()["data"]
    assert (model["id"], model["context_length"]) == ("base_tiny", 32)
    threads = re.findall(r"base_tiny on cpu, torch.float32, (\d+) thread", one.said)
    assert len(threads) == 2 and sum(map(int, threads)) <= max(2, len(os.sched_getaffinity(0)))
    for _ in range(2):
        assert httpx.post(f"{one.url}/chat/completions", json=chat_of("a")).status_code == 200
    workers = httpx.get(f"{one.url}/stats").json()["workers"]
    assert [worker["device"] for worker in workers] == ["cpu/0", "cpu/1"]
    assert sum(worker["finished"] for worker in workers) == 2
    assert len(one.engines()) == 2
    assert one.end() == 0
