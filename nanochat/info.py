"""What runs here: versions, GPUs, compiler, memory, fabric, container, places, Slurm; and what is amiss.

What it is: `look(root)`, plain values by section, gathered without importing torch, and `remarks()`, which
judges them. What it is not: a check of a run (`preflight.py`), or a proof that it computes (`selftest.py`).
Run: `python -m scripts.info [--json]`.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat import __version__, accelerator, facts
from nanochat.common import EXIT_DONE, git_state, hardware, read_json
from nanochat.image import REVISION
from nanochat.launch import doctor
from nanochat.preflight import Finding
from nanochat.room import output, room

INFINIBAND = Path("/sys/class/infiniband")
LABELS = Path("/.singularity.d/labels.json")
# NCCL opens them when it starts; without them it takes TCP, many times slower.
FABRIC_LIBRARIES = ("ibverbs", "rdmacm")
CACHES = ("HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "TMPDIR")
Sections = dict[str, dict[str, Any]]

if TYPE_CHECKING:
    from rich.table import Table


def look(root: Path) -> Sections:
    """Section -> name -> value: text, a number, a list of texts, or None where there is none."""
    gpus, compiler = accelerator.look(), compilers()
    return {
        "nanochat": _ours(),
        "torch": {
            "version": _version("torch"), "built for": facts.torch_build(), "driver": gpus.driver,
            "GPUs": list(gpus.names), "triton": _version("triton"),
        },
        "compiler": compiler,
        "machine": _machine(),
        "fabric": {"InfiniBand": devices(), **{f"lib{name}": _library(name) for name in FABRIC_LIBRARIES}},
        "container": {"kind": container() or None, "image": os.environ.get("APPTAINER_CONTAINER"),
                      "built at": _label(REVISION)},
        "places": _places(root),
        "slurm": _slurm(),
    }  # fmt: skip


def remarks(found: Sections) -> Iterator[Finding]:
    """What will hurt a run on this node, with the remedy."""
    torch, compiler, fabric = found["torch"], found["compiler"], found["fabric"]
    gpus = accelerator.Gpus(torch["driver"], tuple(torch["GPUs"]))
    yield from accelerator.judge(torch["built for"], gpus, found["container"]["kind"] or "")
    if not (compiler["C++"] and compiler["Python headers"]):
        lack = "a C++ compiler" if not compiler["C++"] else "the headers of this Python"
        remedy = "install g++ and python3-dev, load the site's compiler module, or train with --no-compile"
        yield Finding("compiler", f"torch.compile needs {lack}, not found", remedy, EXIT_DONE)
    if fabric["InfiniBand"] and not fabric["libibverbs"]:
        text = "there is InfiniBand and no libibverbs: NCCL between nodes would take TCP, many times slower"
        yield Finding(
            "fabric", text, "install libibverbs1 and ibverbs-providers (our images have them)", EXIT_DONE
        )
    if found["places"]["fault"]:
        yield Finding(
            "base folder", found["places"]["fault"], "set NANOCHAT_BASE_DIR to a folder of yours", EXIT_DONE
        )
    if found["slurm"]["version"]:
        for text, remedy in doctor.place():
            yield Finding("slurm", text, remedy, EXIT_DONE)


def table(found: Sections) -> Table:
    """The values for a terminal; a dash where there is none."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    shown = Table("", "", Column(overflow="fold"), show_header=False, box=box.SIMPLE)
    for section, values in found.items():
        for place, (name, value) in enumerate(values.items()):
            lines = value if isinstance(value, list) else [value]
            text = "\n".join(str(line) for line in lines if line is not None) or "-"
            shown.add_row("" if place else section, name, Text(text), end_section=place == len(values) - 1)
    return shown


# ----------------------------------------------------------------------------- software


def _ours() -> dict[str, Any]:
    code = git_state()
    changed = " and changes" if code["dirty"] else ""
    return {
        "version": __version__,
        "revision": f"{code['commit']}{changed}" if code["commit"] else None,
        "rustbpe": _version("nanochat-rustbpe"),
        "Python": f"{platform.python_version()}, {sys.executable}",
    }


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def compilers(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What torch.compile (and on GPUs triton's launcher) calls."""
    program = next(filter(shutil.which, (environ.get("CXX", ""), "g++", "c++", "clang++")), None)
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    said = (output([program, "--version"]) or "").splitlines() if program else []
    return {"C++": said[0] if said else None, "Python headers": str(headers) if headers.is_file() else None}


# ----------------------------------------------------------------------------- the node


def _machine() -> dict[str, Any]:
    found = hardware()
    return {
        "platform": platform.platform(),
        "CPU": found["cpu"],
        "cores": f"{found['cores']} of {os.cpu_count()} usable",
        "memory": f"{found['memory_mib']:,} MiB",
    }


def devices(folder: Path = INFINIBAND) -> list[str]:
    """Ports of RDMA adapters, each with its state and rate."""
    ports = sorted(folder.glob("*/ports/*"))
    return [f"{port.parts[-3]}:{port.name} {_line(port / 'state')}, {_line(port / 'rate')}" for port in ports]


def _line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return "?"


def _library(name: str) -> str | None:
    return ctypes.util.find_library(name)


def container(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> str:
    """What this process is in: apptainer, docker, podman, enroot; "" for none that is known."""
    if {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"} & environ.keys():
        return "apptainer"
    marks = {".dockerenv": "docker", "run/.containerenv": "podman", ".enroot": "enroot"}
    return next((kind for mark, kind in marks.items() if (root / mark).exists()), "")


def _label(name: str) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return str(read_json(LABELS).get(name) or "") or None
    return None


def _places(root: Path) -> dict[str, Any]:
    left = room(root).bytes
    return {
        "base folder": str(root),
        "free": f"{left / 1e9:,.1f} GB" if left is not None else None,
        "fault": facts.write_fault(root) or None,
        **{name: os.environ.get(name) for name in CACHES},
    }


def _slurm() -> dict[str, Any]:
    cluster = facts.ask_slurm() if shutil.which("sinfo") else None
    return {
        "version": (output(["sinfo", "--version"]) or "").strip() or None,
        "job": os.environ.get("SLURM_JOB_ID"),
        "site": os.environ.get("NANOCHAT_SITE"),
        "partitions": [str(partition) for partition in cluster.partitions.values()] if cluster else [],
    }
