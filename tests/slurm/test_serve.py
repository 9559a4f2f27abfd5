"""The chat server as a job of a real Slurm: the site's flags, who gets in and sees the token, how it ends."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from drive import User
from lab import ACCOUNTED, Lab
from toy import save_model

from nanochat.slurm import seconds
from nanochat.tokenizer import Tokenizer, split_pattern

pytestmark = pytest.mark.slurm
ASK = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400, "temperature": 0}
MANY = {"stream": True, "n": 12}


class Server:
    """A job of `slurm/serve.slurm`."""

    def __init__(self, user: User, job: str, folder: Path) -> None:
        self.user, self.job, self.log = user, job, folder / f"serve.{job}.out"

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def ready(self) -> None:
        """`http` is a client without a token; the address is the one that the log tells."""
        (url,) = self.user.wait("ready", lambda: re.findall(r"^ready: (\S+)$", self.said, re.M), 60)
        self.http = httpx.Client(base_url=url, timeout=30)
        assert self.http.get("/health").status_code == 200

    def fact(self, name: str) -> str:
        found = re.search(rf"\b{name}=(\S*)", self.user.do("scontrol", "show", "job", "-d", self.job))
        return found[1] if found else ""

    def accounted(self, step: str, *fields: str) -> list[str]:
        """What sacct says of the job (step "") or of a step, once it has ended."""
        ask = ("sacct", "-nP", "-j", f"{self.job}{step}", "-o", ",".join((*fields, "End", "JobID")))
        lines = self.user.wait(
            "the end in accounting",
            lambda: [w for w in map(str.strip, self.user.do(*ask).splitlines())
                     if w.endswith(f"|{self.job}{step}") and "|Unknown|" not in w],
            60,
        )  # fmt: skip
        return list(lines[0].split("|")[: len(fields)])


@pytest.fixture(scope="module")
def user(lab_with_accounts: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    found = User(lab_with_accounts.reshape(ACCOUNTED), tmp_path_factory.mktemp("user"))
    save_model(
        found.base, Tokenizer([bytes([i]) for i in range(256)], split_pattern()), "toy", "sft", context=512
    )
    yield found
    found.cancel_all()


@pytest.fixture(scope="module")
def timed(user: User) -> Server:
    """Submitted with one's own flags; its time will be over soon."""
    flags = ("--parsable", "--partition=cpu", "--time=10")
    job = user.do("sbatch", *flags, str(user.script("serve")), "--run", "toy").strip()
    return Server(user, job, user.folder)


@pytest.fixture(scope="module")
def server(user: User, timed: Server) -> Server:
    """Submitted with the site's flags."""
    words = ("--run", "toy", "--workers", "2", "--hours", "0.5", "--dtype", "float32", "ACCOUNT=proj")
    found = re.search(r"^submitted: serve (\d+);", user.do("bash", str(user.script("serve")), *words), re.M)
    assert found
    one = Server(user, found[1], user.base / "serve")
    timed.ready()
    minutes = math.ceil(((seconds(timed.fact("RunTime")) or 0) + 40) / 60)  # Slurm looks at it twice a minute
    user.do("scontrol", "update", f"JobId={timed.job}", f"TimeLimit={minutes}")
    one.ready()
    return one


@pytest.fixture(scope="module")
def token(user: User, server: Server) -> str:
    file = user.base / "serve" / "token"
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text().strip()


def test_the_job_is_as_the_site_says(server: Server) -> None:
    assert (server.fact("Partition"), server.fact("Account")) == ("gpu", "proj")
    assert "gres/gpu=2" in server.fact("TRES") and "gpu:h100:2" in server.fact("TresPerNode")
    assert (server.fact("TimeLimit"), server.fact("CPUs/Task")) == ("00:30:00", "4")
    assert server.said.count("sft_toy on cpu") == 2  # --workers 2, on a site with DEVICE=cpu


def test_who_has_the_token_gets_in(server: Server, token: str) -> None:
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {token}x"}):
        assert server.http.get("/v1/models", headers=wrong).status_code == 401
        assert server.http.post("/chat/completions", json=ASK, headers=wrong).status_code == 401
    page = server.http.get("/")
    assert page.status_code == 200 and "<title>" in page.text
    server.http.headers["Authorization"] = f"Bearer {token}"
    (model,) = server.http.get("/v1/models").json()["data"]
    assert model["id"] == "sft_toy"
    reply = server.http.post("/v1/chat/completions", json={"model": "sft_toy", **ASK}).json()
    assert reply["usage"]["completion_tokens"] > 0 and reply["choices"][0]["message"]["content"]
    port = server.http.base_url.port
    assert re.search(rf"^on your own machine: ssh -N -L {port}:127.0.0.1:{port} -J \S+@", server.said, re.M)


def test_nobody_else_sees_the_token(user: User, server: Server, token: str, tmp_path: Path) -> None:
    job = server.job
    texts = {
        "scontrol": user.do("scontrol", "show", "job", "-dd", job),
        "script": user.do("scontrol", "write", "batch_script", job, "-"),
        "squeue": user.do("squeue", "-j", job, "-O", "Command:1000,Comment:1000"),
        "sacct": user.do("sacct", "-P", "-j", job, "-o", "ALL"),
    }
    logs = [
        *user.folder.glob("*.out"),
        *(user.base / "serve").glob("*.out"),
        *(user.lab.folder / "log").glob("*"),
    ]
    texts |= {path.name: path.read_text(errors="replace") for path in logs}
    processes = [Path("/proc") / str(pid) for pid in user.lab._job_processes()]
    for one in processes:
        texts |= {
            f"{one}/{name}": (one / name).read_text(errors="replace") for name in ("cmdline", "environ")
        }
    assert sum("scripts.chat_web" in text for text in texts.values()) >= 2  # the server, and srun before it
    assert job in texts["sacct"] and job in texts["scontrol"] and len(texts) > 12
    assert [name for name, text in texts.items() if token in text] == []


def test_scancel_ends_it_cleanly(user: User, server: Server, token: str) -> None:
    """A reply under way comes to its end."""
    headers = {"Authorization": f"Bearer {token}"}
    with server.http.stream("POST", "/chat/completions", json=ASK | MANY, headers=headers) as reply:
        user.do("scancel", server.job)
        assert reply.read().endswith(b"data: [DONE]\n\n")
    assert server.accounted("", "State")[0].startswith("CANCELLED")
    assert server.accounted(".0", "ExitCode") == ["0:0"]
    # Slurm's books say so at once, the engine's process takes a moment.
    user.wait("ended", lambda: re.search(r"^ended$", server.said, re.M), 30)
    assert "Traceback" not in server.said


def test_what_cannot_run_is_refused_on_the_login_node(user: User) -> None:
    before = user.do("squeue", "-h", "-o", "%i").split()
    for words, message in {
        "--run other": "no checkpoint of stage sft of run other",
        "--run toy --workers 3": "--workers 3: a node has GPUS_PER_NODE=2",
        "--run toy --hours 20": "--hours 20: use a number above 0, at most MAX_HOURS=12",
        "--run toy --slot 3": "--slots",
        "--run toy CONTAINER=apptainer IMAGE=no.sif": "no.sif: No such file",
        "--run toy GPU_PARTITION=gpus": "there is no partition 'gpus'",
    }.items():
        assert message in user.do("bash", str(user.script("serve")), *words.split(), fails=True)
    assert set(user.do("squeue", "-h", "-o", "%i").split()) <= set(before)


def test_the_end_of_the_time_ends_it_cleanly(timed: Server, server: Server) -> None:
    """Slurm's signal comes half a minute early or more, and the job completes."""
    assert timed.accounted("", "State", "ExitCode") == ["COMPLETED", "0:0"]
    assert re.search(r"^ended$", timed.said, re.M) and "Traceback" not in timed.said
