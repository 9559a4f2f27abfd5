"""Whether this torch can use this node's GPUs: driver and GPUs as the node shows them, and what is amiss.

What it is: `look()`, from nvidia-smi and /proc without importing torch, and `judge(build, found)`, which says
in words why a torch for CUDA will compute on the CPU. What it is not: torch's own view (`selftest.py`), or
AMD's. Run: `python -m scripts.info`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nanochat.common import EXIT_DONE, EXIT_FAULT
from nanochat.preflight import Finding
from nanochat.room import output

KERNEL_MODULE = Path("/proc/driver/nvidia/version")  # also seen in a container that has no GPU
QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
# NVIDIA's table of minor version compatibility: any CUDA of that number runs from this driver on.
MIN_DRIVER = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True)
class Gpus:
    """What the node has; `driver` None: no NVIDIA driver. `names` are those that this process may use."""

    driver: str | None = None
    names: tuple[str, ...] = ()


def look() -> Gpus:
    rows = [line.split(", ") for line in (output(QUERY) or "").splitlines()]
    rows = [row for row in rows if len(row) == 3]
    if rows:
        return Gpus(rows[0][1], tuple(f"{name}, {memory} MiB" for name, _, memory in rows))
    with contextlib.suppress(OSError):
        found = re.search(r"Kernel Module.*?\s(\d{3}\.[\d.]+)", KERNEL_MODULE.read_text(encoding="utf-8"))
        return Gpus(found[1] if found else None)
    return Gpus()


def judge(build: str | None, found: Gpus, container: str = "") -> Iterator[Finding]:
    """What keeps a torch of this `build` (`facts.torch_build`) from the GPUs; code 0 is a mere remark."""
    cuda = re.fullmatch(r"cu(\d\d)(\d+)", build or "")
    if build == "cpu" and found.names:
        text = f"torch is built for the CPU alone, and there are GPUs ({found.names[0]})"
        yield Finding("gpu", text, "bash env/setup.sh --torch cu130, or an image of variant cu130", EXIT_DONE)
    if not cuda:
        return
    name = f"CUDA {cuda[1]}.{cuda[2]}"
    needed = MIN_DRIVER.get(int(cuda[1]), max(MIN_DRIVER.values()))
    if found.driver is None:
        text = f"torch is built for {name}, and there is no NVIDIA driver: it computes on the CPU"
        yield Finding("gpu", text, "run it on a node with GPUs, or take the variant cpu", EXIT_DONE)
    elif int(found.driver.split(".")[0]) < needed:
        fitting = [f"{major}.x" for major, least in MIN_DRIVER.items() if least <= _series(found)]
        text = f"driver {found.driver} is too old for {name}, which needs {needed} or newer"
        remedy = (
            f"take torch for CUDA {fitting[-1]} (variant cu126)" if "12.x" in fitting else "no torch fits"
        )
        yield Finding("gpu", text, f"{remedy}, or ask the site for a newer driver", EXIT_FAULT)
    elif not found.names:
        remedy = {
            "apptainer": "apptainer run --nv", "docker": "docker run --gpus all",
            "podman": "podman run --device nvidia.com/gpu=all",
        }.get(container, "ask Slurm for GPUs, and look at CUDA_VISIBLE_DEVICES")  # fmt: skip
        text = f"torch is built for {name}, driver {found.driver} is there, and no GPU is to be seen here"
        yield Finding("gpu", text, remedy, EXIT_DONE)


def _series(found: Gpus) -> int:
    return int((found.driver or "0").split(".")[0])
