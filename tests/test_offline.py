"""Without a network: what is asked for fails at once and by name; the run's own machines are let through."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve

from nanochat import offline
from nanochat.offline import NoNetwork

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = "192.0.2.1"  # reserved for documentation: nobody answers there


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serve(tmp_path) as running:
        running.put("file", b"content")
        yield running


def test_a_connection_elsewhere_fails_at_once() -> None:
    started = time.monotonic()
    with offline.guard():
        for family, address in ((socket.AF_INET, (ELSEWHERE, 443)), (socket.AF_INET6, ("2001:db8::1", 443))):
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                with pytest.raises(NoNetwork, match=f"no network in this job, and {address[0]}:443"):
                    sock.connect(address)
                with pytest.raises(NoNetwork):
                    sock.connect_ex(address)
        with pytest.raises(NoNetwork, match=r"nowhere\.example"):
            socket.create_connection(("nowhere.example", 443))
    assert time.monotonic() - started < 1


def test_this_machine_and_the_rendezvous_are_let_through(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(hub.url.rsplit(":", 1)[1])
    monkeypatch.setenv("MASTER_ADDR", ELSEWHERE)
    with offline.guard(allow=["192.0.2.7"]):
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, port), timeout=5).close()
        for allowed in (ELSEWHERE, "192.0.2.7"):
            with socket.socket() as sock:
                sock.setblocking(False)
                assert sock.connect_ex((allowed, 9)) != 0, "no route, but not refused by us"
        with socket.socketpair()[0]:  # AF_UNIX
            pass
        with socket.socket(type=socket.SOCK_DGRAM) as own_address:
            own_address.connect(("127.0.0.1", 9))


def test_afterwards_the_network_is_as_before(hub: Hub) -> None:
    lookup, own = socket.getaddrinfo, dict(vars(socket.socket))
    with pytest.raises(NoNetwork), offline.guard():
        socket.create_connection((ELSEWHERE, 443))
    assert socket.getaddrinfo is lookup and dict(vars(socket.socket)) == own
    with socket.socket() as sock:
        sock.settimeout(0.01)
        assert sock.connect_ex((ELSEWHERE, 443)) != 0


@pytest.mark.parametrize(
    ("url", "asset"),
    [("https://huggingface.co/api/datasets/cais/mmlu/tree/main", "mmlu"),
     ("https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main/shard_00007", "shards"),
     ("https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe", "tiktoken vocab.bpe"),
     ("https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip", "eval bundle"),
     ("https://raw.githubusercontent.com/dwyl/english-words/master/words_alpha.txt", "word list")],
)  # fmt: skip
def test_a_library_that_asks_is_told_which_asset_is_missing(url: str, asset: str) -> None:
    """Through the real client, which must neither swallow the error nor try again."""
    import requests

    started = time.monotonic()
    with offline.guard(), pytest.raises(NoNetwork) as caught:
        requests.get(url, timeout=30)
    assert f"asset {asset!r} is missing" in str(caught.value) and url in str(caught.value)
    assert "python -m scripts.download_data" in str(caught.value)
    assert time.monotonic() - started < 5


def test_a_library_that_keeps_offline_is_explained() -> None:
    class OfflineModeIsEnabled(ConnectionError):
        pass

    with pytest.raises(NoNetwork, match="asset 'gsm8k' is missing"), offline.guard():
        try:
            raise OfflineModeIsEnabled(
                "Cannot reach https://huggingface.co/api/datasets/openai/gsm8k: offline mode"
            )
        except OSError as error:
            raise ValueError("cannot load the data set") from error
    with pytest.raises(ValueError, match="something else"), offline.guard():
        raise ValueError("something else")


def python(code: str, base: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **offline.variables(base)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_hubs_client_obeys_the_variables(base: Path) -> None:
    code = """
from nanochat.offline import guard
with guard():
    from huggingface_hub import HfApi
    HfApi().dataset_info("openai/gsm8k")
"""
    run = python(code, base)
    assert run.returncode == 1 and "asset 'gsm8k' is missing" in run.stderr.splitlines()[-1], run.stderr


def test_a_program_runs_without_a_network(base: Path) -> None:
    """A program that wants a file of tiktoken's ends with its name and exit code 2."""
    program = base / "asks.py"
    program.write_text(
        "import sys\nfrom nanochat.common import run_main\n"
        "def main(argv):\n    import tiktoken\n    print(argv)\n    tiktoken.get_encoding('gpt2')\n"
        "if __name__ == '__main__':\n    run_main(main)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{base}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "nanochat.offline", "asks", "--option", "1"]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 2 and run.stdout == "['--option', '1']\n"
    assert "asset 'tiktoken encoder.json' is missing" in run.stderr and "Traceback" not in run.stderr
    refused = subprocess.run(command[:3], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "which program?" in refused.stderr


def test_importing_it_changes_nothing() -> None:
    code = "import socket; a = socket.getaddrinfo, dict(vars(socket.socket)); import nanochat.offline;"
    code += "assert a == (socket.getaddrinfo, dict(vars(socket.socket)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
