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
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from nanochat import image, slurm
from nanochat.assets import Wanted, needed
from nanochat.common import read_json, resolve
from nanochat.ledger import Fault, check
from nanochat.room import Room, nearest, room
from nanochat.slurm import Partition

CLONE = Path(__file__).resolve().parent.parent
SHARD_BYTES = 110e6
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
TRAINING = ("base", "mid", "sft", "rl")
T = TypeVar("T")


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
class Cluster:
    """What Slurm says; None where it does not (no accounting, a command that failed)."""

    partitions: dict[str, Partition]
    associations: dict[str, frozenset[str]] | None  # account -> its QOS
    qos_minutes: dict[str, float | None] | None
    settings: dict[str, str]

    @property
    def skew_s(self) -> float | None:
        """Of the controller's clock against this node's."""
        return float(self.settings["skew_s"]) if "skew_s" in self.settings else None


def ask_slurm() -> Cluster | None:
    """The cluster as its commands describe it, asked all at once; None if there is no Slurm that answers."""
    with ThreadPoolExecutor(4) as pool:
        partitions = pool.submit(_answer, slurm.partitions)
        associations = pool.submit(_answer, slurm.associations)
        qos_minutes = pool.submit(_answer, slurm.qos_minutes)
        settings = pool.submit(_answer, slurm.settings)
        known = partitions.result()
        if known is None:
            return None
        return Cluster(known, associations.result(), qos_minutes.result() or None, settings.result() or {})


def _answer(question: Callable[[float], T]) -> T | None:
    with contextlib.suppress(slurm.SlurmError):
        return question(ANSWER_TIMEOUT_S)
    return None


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
            log_fault=write_fault(logs),
            tokenizer=_hash_in(resolve(root, wanted.tok_dir) / "tokenizer.json"),
            trained_with=_trained_with(root, wanted),
            python=sys.version_info[:2],
            torch=torch_build(),
            image_fault=image.fault(site.container, site.image, None if in_job else CLONE),
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


def write_fault(folder: Path) -> str:
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
    return write_fault(Path(path)) if Path(path).is_dir() else f"{path} is no folder on this node"


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
