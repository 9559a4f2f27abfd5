"""The program itself, as a process: what it refuses before it loads, how it ends, what others see of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from served import LIMIT_S, chat_of, wait
from toy import make_world, options, run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with a model of a few steps."""
    world, base = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("base")
    make_world(world)
    code = run("base", options("base", world, base, "--steps", "1"), base / "log")
    assert code == 0, (base / "log").read_text()
    return base


def command(base: Path, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "scripts.chat_web", "--preset", "tiny", "--source", "base", "--device", "cpu",
        "--base-dir", str(base), *([] if "--port" in words else ["--port", "0"]), *words,
    ]  # fmt: skip


def refused(base: Path, *words: str) -> str:
    done = subprocess.run(
        command(base, *words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


class Program:
    """chat_web, started; `url` is what it prints."""

    def __init__(self, base: Path, log: Path, *words: str, **variables: str) -> None:
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command(base, *words), cwd=ROOT, stdout=output, stderr=output, env=os.environ | variables
            )
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

        wait(is_ready)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    found: list[Program] = []
    yield found
    for one in found:
        one.process.kill()


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(
    trained: Path, tmp_path: Path, programs: list[Program], number: signal.Signals
) -> None:
    """A reply under way comes to its end, and the exit code is 0."""
    one = Program(trained, tmp_path / "log")
    programs.append(one)
    one.ready()
    body = chat_of("a", stream=True, max_tokens=20)
    with httpx.stream("POST", f"{one.url}/chat/completions", json=body, timeout=LIMIT_S) as response:
        one.process.send_signal(number)
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert one.process.wait(LIMIT_S) == 0
    assert "Traceback" not in one.said


def test_under_slurm_a_token_is_always_needed(trained: Path, tmp_path: Path, programs: list[Program]) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in trained.iterdir():
        (base / name.name).symlink_to(name)
    one = Program(base, tmp_path / "log", SLURM_JOB_ID="7", SLURM_SUBMIT_HOST="login1")
    programs.append(one)
    one.ready()
    file = base / "serve" / "token"
    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{one.url}/v1/models").status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{one.url}/v1/models", headers=headers).status_code == 200
    assert "ssh -N -L" in one.said and "@login1" in one.said and str(file) in one.said
    assert token not in one.said
    assert token not in Path(f"/proc/{one.process.pid}/cmdline").read_text()
    assert token not in Path(f"/proc/{one.process.pid}/environ").read_text()
    assert one.end() == 0


def test_the_model_is_the_one_on_the_disk(trained: Path) -> None:
    """`load` gives each worker its copy."""
    from nanochat.config_serve import ChatWeb
    from nanochat.serve.model import load

    threads = torch.get_num_threads()
    config = ChatWeb(
        run="tiny", source="base", base_dir=str(trained), device="cpu", dtype="float32", workers=2
    )
    model, workers = load(config)
    try:
        assert (model.id, model.context, len(workers)) == ("base_tiny", 32, 2)
        assert workers[0].scheduler.engine.model is not workers[1].scheduler.engine.model
    finally:
        for worker in workers:
            worker.scheduler.close()
        torch.set_num_threads(threads)
