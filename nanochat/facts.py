"""What is so on this node: the facts that preflight judges, gathered once, each with a time limit.

What it is: Slurm's answers (scontrol, sinfo, sacctmgr), room on the disks, the files' faults, tokenizer,
Python, torch's build without importing it, image, clock, port, scratch, network, as plain values. A command
that is absent or silent gives None, "unknown", no error. What it is not: a judgement (`preflight.py`).
Run: `python -m scripts.preflight --json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from nanochat.assets import Wanted, needed
from nanochat.common import read_json, resolve
from nanochat.ledger import Fault, check
from nanochat.room import Room, nearest, output, room, user

SHARD_BYTES = 110e6
CONNECT_TIMEOUT_S = 5.0
TRAINING = ("base", "mid", "sft", "rl")


@dataclass(frozen=True)
class Site:
    """What preflight wants to know of a cluster; `Site.of` takes it from any object with such attributes."""

    account: str = ""
    qos: str = ""
    cpu_qos: str = ""
    cpu_partition: str = ""
    gpu_partition: str = ""
    gpu_type: str = ""
    gpu_request: str = "--gpus-per-node={gpus}"
    gpus_per_node: int = 8
    max_hours: float = 12.0
    cpu_max_hours: float = 12.0
    extra: str = ""
    gpu_extra: str = ""
    data_node_has_network: bool = True
    local_scratch: str = ""
    stage_local: bool = False
    torch: str = "cu130"
    container: str = "none"
    image: str = ""
    device: str = "cuda"

    @classmethod
    def of(cls, site: object) -> Site:
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: getattr(site, name) for name in names if hasattr(site, name)})


# ----------------------------------------------------------------------------- Slurm


@dataclass(frozen=True)
class Partition:
    """A partition; `gpus` is GPU type -> number on a node (None: unknown); other Nones mean "no limit"."""

    name: str
    is_up: bool
    minutes: float | None
    gpus: dict[str, int] | None
    accounts: frozenset[str] | None


@dataclass(frozen=True)
class Cluster:
    """What Slurm says; None where it does not (no accounting, a command that failed)."""

    partitions: dict[str, Partition]
    associations: dict[str, frozenset[str]] | None  # account -> its QOS
    qos_minutes: dict[str, float | None] | None
    enforces: str
    select: str
    skew_s: float | None


def minutes(text: str) -> float | None:
    """Slurm's `1-02:03:04`, `12:00:00`, `30` (minutes) in minutes; None for UNLIMITED and its like."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not match:
        return None
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] is not None:  # D-HH[:MM[:SS]]
        return days * 1440 + first * 60 + second + third / 60
    if match[4] is not None:  # HH:MM:SS
        return first * 60 + second + third / 60
    return first + second / 60  # MM[:SS]


def parse_partitions(text: str, gres: str | None) -> dict[str, Partition]:
    """From `scontrol show partition -o` and `sinfo -h -o '%R|%G'`."""
    gpus: dict[str, dict[str, int]] = {}
    for line in (gres or "").splitlines():
        whose, _, resources = line.partition("|")
        for kind, number in re.findall(r"gpu(?::([A-Za-z][\w.-]*))?:(\d+)", resources):
            of = gpus.setdefault(whose, {})
            of[kind] = max(of.get(kind, 0), int(number))
    found = {}
    for line in text.splitlines():
        known = dict(re.findall(r"(\w+)=(\S*)", line))
        if name := known.get("PartitionName"):
            is_up, accounts = known.get("State", "UP") == "UP", _names(known.get("AllowAccounts", "ALL"))
            limit = minutes(known.get("MaxTime", ""))
            has = gpus.get(name, {}) if gres is not None else None
            found[name] = Partition(name, is_up, limit, has, accounts)
    return found


def _names(text: str) -> frozenset[str] | None:
    return None if text in ("ALL", "", "(null)") else frozenset(text.split(","))


def parse_associations(text: str) -> dict[str, frozenset[str]]:
    """From `sacctmgr -nP show assoc user=ME format=account,qos`."""
    found: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        account, _, qos = line.partition("|")
        found[account] = found.get(account, frozenset()) | frozenset(filter(None, qos.split(",")))
    return found


def parse_config(text: str) -> dict[str, str]:
    """From `scontrol show config`; "as of" is when the controller answered, by its clock."""
    known = {
        key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    if match := re.search(r"as of (\S+)", text):
        known["as of"] = match[1]
    return known


def ask_slurm() -> Cluster | None:
    """The cluster as its commands describe it, asked all at once; None if there is no Slurm that answers."""
    commands = (
        ["scontrol", "show", "partition", "-o"],
        ["sinfo", "-h", "-o", "%R|%G"],
        ["scontrol", "show", "config"],
        ["sacctmgr", "-nP", "show", "assoc", "where", f"user={user()}", "format=account,qos"],
        ["sacctmgr", "-nP", "show", "qos", "format=name,maxwall"],
    )
    if not shutil.which("scontrol"):
        return None
    with ThreadPoolExecutor(len(commands)) as pool:
        partitions, gres, config, associations, qos = pool.map(_timed, commands)
    if partitions is None:
        return None
    known = parse_config(config[0] if config else "")
    skew = None
    if config and "as of" in known:
        with contextlib.suppress(ValueError):
            skew = abs(time.mktime(time.strptime(known["as of"], "%Y-%m-%dT%H:%M:%S")) - config[1])
    limits = [line.partition("|")[::2] for line in qos[0].splitlines()] if qos else None
    return Cluster(
        parse_partitions(partitions[0], gres[0] if gres else None),
        parse_associations(associations[0]) if associations else None,
        {name: minutes(wall) for name, wall in limits} if limits else None,
        known.get("AccountingStorageEnforce", "none"),
        known.get("SelectType", ""),
        skew,
    )


def _timed(command: list[str]) -> tuple[str, float] | None:
    text = output(command)
    return None if text is None else (text, time.time())


# ----------------------------------------------------------------------------- this node


@dataclass(frozen=True)
class Facts:
    """Everything that the checks look at. None: unknown."""

    site: Site
    wanted: Wanted
    in_job: bool
    cluster: Cluster | None
    faults: tuple[Fault, ...]
    room: Room
    need_bytes: int
    need_files: int
    log_folder: Path
    log_fault: str  # why nothing can be written there; "" if it can
    tokenizer: str | None  # hash of the one in tok_dir
    trained_with: dict[str, str]  # checkpoint -> hash of its tokenizer
    python: tuple[int, int]
    torch: str | None  # "cpu", "cu130", "rocm7.1"; "" if it is not installed
    image_fault: str
    port: int | None
    port_is_free: bool
    scratch_fault: str
    skew_s: float | None  # of this node's clock against the file server's
    network: bool | None
    gpus: tuple[int, int] | None  # that Slurm gave, that the job sees


def gather(
    root: Path,
    site: Site,
    wanted: Wanted,
    *,
    in_job: bool | None = None,
    fetches_here: bool = False,
    verify: bool = False,
) -> Facts:
    """Look at everything once. Within a job the scheduler is not asked, and the node itself is looked at.

    `fetches_here`: before a submission, but on the node that is to fetch what is lacking.
    """
    in_job = "SLURM_JOB_ID" in os.environ if in_job is None else in_job
    fetches = in_job or fetches_here
    with ThreadPoolExecutor(2) as pool:
        cluster = pool.submit(ask_slurm) if not in_job else None
        faults = tuple(check(root, needed(wanted), verify))
        lacking = [f for f in faults if f.kind in ("missing", "unlisted", "empty folder") and f.asset.source]
        shards = sum(fault.asset.name == "shards" for fault in lacking)
        logs, port = root / "runs", os.environ.get("MASTER_PORT", "")
        return Facts(
            site=site,
            wanted=wanted,
            in_job=in_job,
            cluster=cluster.result() if cluster else None,
            faults=faults,
            room=room(root),
            need_bytes=int(shards * SHARD_BYTES) + _checkpoint_bytes(wanted),
            need_files=len(lacking) + 100 * len(wanted.stage_names),
            log_folder=logs,
            log_fault=_write_fault(logs),
            tokenizer=_hash_in(resolve(root, wanted.tok_dir) / "tokenizer.json"),
            trained_with=_trained_with(root, wanted),
            python=sys.version_info[:2],
            torch=torch_build(),
            image_fault=_image_fault(site),
            port=int(port) if in_job and port.isdigit() else None,
            port_is_free=_is_free(int(port)) if in_job and port.isdigit() else True,
            scratch_fault=_scratch_fault(site) if in_job else "",
            skew_s=_file_server_skew(root),
            network=_reaches_hub() if fetches and "data" in wanted.stage_names and lacking else None,
            gpus=_gpus() if in_job else None,
        )


def _checkpoint_bytes(wanted: Wanted) -> int:
    """Three checkpoints a training stage: weights and two moments in float32, value embeddings included."""
    width, vocabulary = wanted.depth * 64, 2_048 if wanted.corpus == "world" else 65_536
    parameters = 12 * wanted.depth * width**2 + (2 + (wanted.depth + 1) // 2) * vocabulary * width
    return 3 * 12 * parameters * len(set(TRAINING) & set(wanted.stage_names))


def _write_fault(folder: Path) -> str:
    """Why no file can be made in `folder`, or in the folder in which it would be made; "" if one can."""
    there = nearest(folder)
    blocked = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if blocked is not None:
        return f"{blocked} is a file"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return f"{there}: {error.strerror or error}"
    return "" if there.stat().st_mode & 0o222 else f"{there}: Permission denied"


def _hash_in(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(read_json(path)["hash"])
    return None


def _trained_with(root: Path, wanted: Wanted) -> dict[str, str]:
    """The tokenizer's hash in the newest checkpoint of each stage of this run."""
    found = {}
    for stage in TRAINING:
        folders = sorted((root / f"{stage}_{wanted.run or f'd{wanted.depth}'}").glob("checkpoints/step_*"))
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError):
            state = read_json(folders[-1] / "state.json")
            found[str(folders[-1])] = str(state["identity"]["tokenizer"])
    return found


def torch_build() -> str | None:
    """What torch was built for, from its files: importing it takes seconds and, on some nodes, a driver."""
    try:
        package = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return ""
    try:
        text = Path(str(package.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except OSError:
        return None
    known = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *'([^']+)'", text, re.MULTILINE))
    if "hip" in known:
        return f"rocm{known['hip']}"
    return f"cu{known['cuda'].replace('.', '')}" if "cuda" in known else "cpu"


def _image_fault(site: Site) -> str:
    """Why the container image cannot be one; a name in a registry is not looked up."""
    if site.container == "none" or not site.image.endswith((".sif", ".sqsh")):
        return "" if site.image or site.container == "none" else "IMAGE is not set"
    path = Path(os.path.expandvars(site.image)).expanduser()
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if site.image.endswith(".sif"):
        return "" if head[32:41] == b"SIF_MAGIC" else f"{path} is no Apptainer image"
    return "" if head[:4] == b"hsqs" else f"{path} is no squashfs image"


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("", port))
        return True
    return False


def _scratch_fault(site: Site) -> str:
    if not site.local_scratch:
        return ""
    path = os.path.expandvars(site.local_scratch)
    if "$" in path:
        return f"{site.local_scratch} names a variable that is not set on this node"
    return _write_fault(Path(path)) if Path(path).is_dir() else f"{path} is no folder on this node"


def _file_server_skew(root: Path) -> float | None:
    """Seconds between this clock and the time that the filesystem gives a new file."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=nearest(root)) as file:
        file.write(b"x")
        file.flush()
        return abs(time.time() - os.stat(file.name).st_mtime)
    return None


def _reaches_hub() -> bool:
    from nanochat.fetch import endpoint

    where = urlsplit(endpoint())
    if not where.hostname:  # a folder
        return Path(endpoint()).is_dir()
    with contextlib.suppress(OSError):
        default = 80 if where.scheme == "http" else 443
        socket.create_connection((where.hostname, where.port or default), CONNECT_TIMEOUT_S).close()
        return True
    return False


def _gpus() -> tuple[int, int] | None:
    given, seen = os.environ.get("SLURM_GPUS_ON_NODE", ""), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not given.isdigit():
        return None
    return int(given), len([device for device in (seen or "").split(",") if device.strip()])


def names(items: Iterable[str]) -> str:
    """A list for a message."""
    return ", ".join(sorted(items)) or "none"
