"""What Slurm's commands say, as Python values: one place for their formats.

What it is: sbatch, squeue, scontrol, scancel, sinfo, sacct, sacctmgr, called with argument lists and a clean
environment (no inherited SBATCH_* or SLURM_* variable may change a job). What it is not: decisions. No torch.
Run: `pytest -m slurm`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping

from nanochat.common import UsageError
from nanochat.room import user

TIMEOUT_S = 60
# Variables of a job or of the plan that a new job must not inherit; SLURM_CONF says which cluster it is.
NOT_INHERITED = re.compile(r"(SBATCH|SLURM|SRUN|SALLOC|PMI|PMIX|NANOCHAT|TORCHELASTIC)_.*|TMPDIR|HOSTNAME")
KEPT = ("SLURM_CONF",)
LIVE = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED",
}  # fmt: skip


class SlurmError(UsageError):
    """A Slurm command is not there, or failed; the text is its own."""


@dataclasses.dataclass(frozen=True)
class Queued:
    """A job as Slurm sees it. `left_s` and `start` are None where Slurm does not say."""

    id: str
    state: str
    reason: str = ""
    start: str = ""
    left_s: int | None = None
    nodes: str = ""
    excluded: str = ""
    comment: str = ""

    @property
    def is_live(self) -> bool:
        return self.state in LIVE


@dataclasses.dataclass(frozen=True)
class Partition:
    """`gpus`: type -> most of them on a node; the type is "" where the cluster names none."""

    name: str
    is_default: bool
    is_up: bool
    nodes: int
    minutes: float | None  # None: no limit
    gpus: dict[str, int]
    accounts: frozenset[str] | None  # that may use it; None: all

    def __str__(self) -> str:
        gpus = ", ".join(f"{number} {kind or 'GPU'}s a node" for kind, number in self.gpus.items())
        return f"{self.name}: {self.nodes} nodes, {gpus or 'no GPUs'}"


# ----------------------------------------------------------------------------- calling


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a new job inherits."""
    return {k: v for k, v in environ.items() if k in KEPT or not NOT_INHERITED.fullmatch(k)}


def call(*command: str, timeout_s: float = TIMEOUT_S, extra: Mapping[str, str] | None = None) -> str:
    """What a command prints; SlurmError if it is not installed or fails. `extra`: further variables."""
    if not shutil.which(command[0]):
        raise SlurmError(
            f"{command[0]} is not on PATH: run this on a login node of the cluster, or load Slurm's module"
        )
    try:
        done = subprocess.run(
            command, env=environment() | dict(extra or {}), capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} gave no answer within {timeout_s:g} s; try again") from error
    if done.returncode:
        raise SlurmError(f"{command[0]}: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout


def submit(path: str, after: str, exclude: str = "") -> str:
    """Submit a batch script; returns the job's id. A job whose dependency cannot come true is cancelled."""
    flags = ["--kill-on-invalid-dep=yes", f"--dependency={after}"] if after else []
    flags += [f"--exclude={exclude}"] if exclude else []
    return call("sbatch", "--parsable", *flags, path).strip().split(";")[0]


def exclude(ids: Iterable[str], nodes: str) -> None:
    """Keep jobs that wait off these nodes."""
    for job in ids:
        call("scontrol", "update", f"JobId={job}", f"ExcNodeList={nodes}")


def test(path: str) -> str:
    """Why sbatch would refuse a script, in its words; "" if it would not."""
    try:
        call("sbatch", "--test-only", path)
    except SlurmError as error:
        return str(error)
    return ""


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs in this order. One that has ended is no error."""
    for job in ids:
        call("scancel", job)


# ----------------------------------------------------------------------------- asking


def queue() -> dict[str, Queued]:
    """The user's jobs that the controller still knows, ended ones included."""
    form = "%i|%T|%r|%S|%L|%N|%x|%k"
    lines = call("squeue", "-h", "-u", user(), "-t", "all", "-o", form).splitlines()
    found = (line.split("|", 7) for line in lines if line.count("|") >= 7)
    return {
        job: Queued(job, state, reason, "" if start == "N/A" else start, seconds(left), nodes, out, comment)
        for job, state, reason, start, left, nodes, out, comment in found
    }


def accounted(ids: Iterable[str]) -> dict[str, Queued]:
    """What accounting knows of jobs that the controller has forgotten; nothing where there is none."""
    wanted = ",".join(ids)
    if not wanted or not shutil.which("sacct"):
        return {}
    try:
        lines = call("sacct", "-nPX", "-j", wanted, "-o", "JobID,State,NodeList").splitlines()
    except SlurmError:
        return {}
    found = (line.split("|") for line in lines)
    return {job: Queued(job, state.split()[0], nodes=nodes) for job, state, nodes in found}


def states(ids: Iterable[str]) -> dict[str, Queued]:
    """The jobs of these ids, from the controller, else from accounting."""
    wanted = set(ids)
    known = {job: found for job, found in queue().items() if job in wanted}
    return {**accounted(sorted(wanted - known.keys())), **known}


def seconds(text: str) -> int | None:
    """Slurm's `1-02:03:04`, `12:00`, `UNLIMITED` in seconds."""
    match = re.fullmatch(r"(?:(\d+)-)?((?:\d+:)*\d+)", text.strip())
    if not match:
        return None
    total = 0
    for part in match[2].split(":"):
        total = 60 * total + int(part)
    parts = match[2].count(":")
    if match[1]:  # days-hours[:minutes[:seconds]]
        total *= 60 ** (2 - parts)
    return total + 86_400 * int(match[1] or 0)


def time_left(job: str) -> int | None:
    """Seconds until the time limit of a running job; None if there is none, or nobody says."""
    if end := os.environ.get("SLURM_JOB_END_TIME", ""):
        return int(end) - int(time.time())
    try:
        return seconds(call("squeue", "-h", "-j", job, "-o", "%L"))
    except SlurmError:
        return None


def hostnames(nodes: str) -> list[str]:
    """`gpu[08-10,12],login` -> gpu08, gpu09, gpu10, gpu12, login."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]+(?:\[[^\]]*\])?)+", nodes):
        pieces = re.split(r"\[([^\]]*)\]", part)
        choices = [_numbers(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
        names += ["".join(words) for words in itertools.product(*choices)]
    return names


def _numbers(ranges: str) -> list[str]:
    """`08-10,12` -> 08, 09, 10, 12."""
    found: list[str] = []
    for piece in ranges.split(","):
        first, _, last = piece.partition("-")
        found += [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
    return found


def node_address(node: str) -> str:
    """The address that Slurm itself uses for a node; "" if it does not say."""
    match = re.search(r"NodeAddr=(\S+)", call("scontrol", "show", "node", node))
    return match[1] if match else ""


def log_of(job: str) -> str:
    """Where a job's output goes; "" if Slurm does not say."""
    match = re.search(r"^ *StdOut=(.+)$", call("scontrol", "show", "job", job), re.MULTILINE)
    return match[1] if match else ""


# ----------------------------------------------------------------------------- the cluster


def partitions(timeout_s: float = TIMEOUT_S) -> dict[str, Partition]:
    """The partitions by name, the user may use them or not."""
    gpus: dict[str, dict[str, int]] = {}
    for line in call("sinfo", "-h", "-o", "%R|%G", timeout_s=timeout_s).splitlines():
        whose, _, gres = line.partition("|")
        of = gpus.setdefault(whose, {})
        for kind, number in gpus_in(gres).items():
            of[kind] = max(of.get(kind, 0), number)
    found = {}
    for line in call("scontrol", "show", "partition", "-o", timeout_s=timeout_s).splitlines():
        known = dict(re.findall(r"(\w+)=(\S*)", line))
        if name := known.get("PartitionName"):
            limit, accounts = seconds(known.get("MaxTime", "")), known.get("AllowAccounts", "ALL")
            found[name] = Partition(
                name, known.get("Default") == "YES", known.get("State", "UP") == "UP",
                int(known.get("TotalNodes", 0)), None if limit is None else limit / 60, gpus.get(name, {}),
                None if accounts in ("ALL", "", "(null)") else frozenset(accounts.split(",")),
            )  # fmt: skip
    return found


def gpus_in(gres: str) -> dict[str, int]:
    """`gpu:h100:8(S:0-1),nvme:1` -> {"h100": 8}."""
    found = re.findall(r"gpu(?::([A-Za-z][\w.-]*))?:(\d+)", gres)
    return {kind: int(number) for kind, number in found}


def associations(timeout_s: float = TIMEOUT_S) -> dict[str, frozenset[str]]:
    """The user's accounts, and the QOS of each."""
    words = ("show", "assoc", "where", f"user={user()}", "format=account,qos")
    found: dict[str, frozenset[str]] = {}
    for line in call("sacctmgr", "-nP", *words, timeout_s=timeout_s).splitlines():
        account, _, qos = line.partition("|")
        found[account] = found.get(account, frozenset()) | frozenset(filter(None, qos.split(",")))
    return found


def qos_minutes(timeout_s: float = TIMEOUT_S) -> dict[str, float | None]:
    """The longest time limit of each QOS; None: no limit."""
    lines = call("sacctmgr", "-nP", "show", "qos", "format=name,maxwall", timeout_s=timeout_s).splitlines()
    limits = {name: seconds(wall) for name, _, wall in (line.partition("|") for line in lines)}
    return {name: None if limit is None else limit / 60 for name, limit in limits.items()}


def settings(timeout_s: float = TIMEOUT_S) -> dict[str, str]:
    """`scontrol show config`; `skew_s` is by how much the controller's clock differs from this node's."""
    text = call("scontrol", "show", "config", timeout_s=timeout_s)
    now = time.time()
    lines = (line.partition("=") for line in text.splitlines())
    known = {key.strip(): value.strip() for key, _, value in lines}
    with contextlib.suppress(ValueError):
        stamp = re.search(r"as of (\S+)", text)
        then = time.strptime(stamp[1] if stamp else "", "%Y-%m-%dT%H:%M:%S")
        known["skew_s"] = f"{abs(time.mktime(then) - now):.0f}"
    return known
