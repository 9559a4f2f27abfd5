"""A site file for the cluster that we are on, from what its Slurm says; the user looks over it.

What it is: partitions with GPUs, limits, accounts, as text with the choices as comments. What it is not: a
promise that these are the right ones. Run: `python -m scripts.launch site detect NAME`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from nanochat import slurm
from nanochat.slurm import Partition


def detect() -> str:
    """The text of a site file."""
    found = slurm.partitions().values()
    gpu = sorted((p for p in found if p.is_up and p.gpus), key=lambda p: -p.nodes * max(p.gpus.values()))
    cpu = [p for p in found if p.is_up and not p.gpus]
    default = [p for p in cpu if p.is_default] + cpu
    lines = [
        "# Made by `python -m scripts.launch site detect`; look it over, not all of it is yours to use.",
        *_comments("CPU partitions", cpu), *_comments("GPU partitions", gpu), "STATUS=detected, not run",
    ]  # fmt: skip
    with contextlib.suppress(slurm.SlurmError):  # where Slurm keeps none
        accounts = sorted(slurm.associations())
        lines += [f"# your accounts: {', '.join(accounts)}", f"ACCOUNT={accounts[0]}"] if accounts else []
    if default:
        lines += [f"CPU_PARTITION={default[0].name}", *_hours("CPU_MAX_HOURS", default[0])]
    if gpu:
        kind, number = max(gpu[0].gpus.items(), key=lambda item: item[1])
        request = "--gres=gpu:{type}:{gpus}" if kind else "--gres=gpu:{gpus}"
        lines += [f"GPU_PARTITION={gpu[0].name}", f"GPU_TYPE={kind}", f"GPU_REQUEST={request}"]
        lines += [f"GPUS_PER_NODE={number}", *_hours("MAX_HOURS", gpu[0])]
    return "\n".join([*lines, "# further keys: docs/reference/sites.md", ""])


def _comments(what: str, found: Sequence[Partition]) -> list[str]:
    limits = ["no limit" if p.minutes is None else f"{p.minutes / 60:g} h" for p in found]
    facts = [f"#   {partition}, {limit}" for partition, limit in zip(found, limits, strict=True)]
    return [f"# {what}:", *facts]


def _hours(key: str, partition: Partition) -> list[str]:
    return [] if partition.minutes is None else [f"{key}={partition.minutes / 60:g}"]
