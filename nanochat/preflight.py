"""All mistakes of a run in one pass, before it costs anything: on the login node and at each job's start.

What it is: a table of small checks, each a pure function of `Facts`, which were gathered once. Each finding
has one line that says what is wrong, one that says what to do, and an exit code: 2, yours to mend; 1, this
node's fault. What it is not: the gathering (`facts.py`). No torch, no GPU.
Run: `python -m scripts.preflight --site NAME --preset speedrun`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nanochat.common import EXIT_DONE, EXIT_FAULT, EXIT_USAGE
from nanochat.facts import Facts, names
from nanochat.ledger import FETCH, Fault
from nanochat.slurm import Partition

MAX_SKEW_S = 30.0
PYTHONS = ((3, 10), (3, 13))
GPU_STYLES = {
    "--gres": r"--gres=gpu(:[\w{}.-]+)?:\{gpus\}",
    "--gpus": r"--gpus-per-node=([\w{}.-]+:)?\{gpus\}",
}


@dataclass(frozen=True)
class Finding:
    """One mistake."""

    check: str
    text: str
    remedy: str
    code: int = EXIT_USAGE

    def __str__(self) -> str:
        return f"{self.check}: {self.text}\n    remedy: {self.remedy}"


@dataclass(frozen=True)
class _Check:
    name: str
    find: Callable[[Facts], Iterator[tuple[str, str]]]
    code: int = EXIT_USAGE


def judge(facts: Facts) -> list[Finding]:
    """Every mistake; an empty list means that the run may go."""
    return [
        Finding(check.name, text, remedy, check.code)
        for check in CHECKS
        for text, remedy in check.find(facts)
    ]


def exit_code(findings: list[Finding]) -> int:
    """2 if the user can mend something, 1 if only this node is at fault, else 0."""
    codes = {finding.code for finding in findings}
    return EXIT_USAGE if EXIT_USAGE in codes else EXIT_FAULT if codes else EXIT_DONE


# ----------------------------------------------------------------------------- what Slurm would refuse


def _partitions(facts: Facts, kind: str) -> list[Partition]:
    """The partitions that the site names for `kind` (cpu, gpu) and Slurm knows."""
    if facts.cluster is None:
        return []
    given = getattr(facts.site, f"{kind}_partition").split(",")
    return [facts.cluster.partitions[name] for name in given if name in facts.cluster.partitions]


def _account(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.cluster is None or facts.cluster.associations is None:
        return
    site, mine = facts.site, facts.cluster.associations
    if site.account and site.account not in mine:
        yield f"account {site.account!r} is not one of yours", f"set ACCOUNT to one of: {names(mine)}"
        return
    if not mine and "associations" in facts.cluster.settings.get("AccountingStorageEnforce", ""):
        yield "Slurm knows no account of yours", "ask the site to add you to one"
    for partition in (*_partitions(facts, "cpu"), *_partitions(facts, "gpu")):
        if site.account and partition.accounts is not None and site.account not in partition.accounts:
            text = f"account {site.account!r} may not use partition {partition.name!r}"
            yield text, f"set ACCOUNT to one of: {names(partition.accounts)}"


def _partition(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.cluster is None:
        return
    known = facts.cluster.partitions
    with_gpus = [name for name, partition in known.items() if partition.gpus]
    for kind in ("cpu", "gpu"):
        key = f"{kind.upper()}_PARTITION"
        for name in filter(None, getattr(facts.site, f"{kind}_partition").split(",")):
            if name not in known:
                yield f"{key}={name}: there is no such partition", f"set {key} to one of: {names(known)}"
            elif not known[name].is_up:
                up = [other for other in known if known[other].is_up]
                yield f"{key}={name}: the partition is not up", f"wait, or set {key} to one of: {names(up)}"
            elif kind == "gpu" and facts.site.gpus_per_node and not known[name].gpus:
                text = f"{key}={name}: the partition has no GPUs"
                yield text, f"set {key} to one of: {names(with_gpus)}"


def _qos(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.cluster is None or facts.cluster.associations is None:
        return
    site, known = facts.site, facts.cluster.associations
    mine = known.get(site.account) if site.account else frozenset[str]().union(*known.values())
    if mine is None:  # said by `account`
        return
    for key, name in (("QOS", site.qos), ("CPU_QOS", site.cpu_qos)):
        if name and name not in mine:
            yield (
                f"{key}={name}: not a QOS of your account",
                f"set {key} to one of: {names(mine)}, or to none",
            )


def _max_time(facts: Facts) -> Iterator[tuple[str, str]]:
    """sbatch takes such a job, and it then waits for ever (EnforcePartLimits=NO, the default)."""
    if facts.cluster is None:
        return
    walls = facts.cluster.qos_minutes or {}
    for kind, hours, key, qos in (
        ("cpu", facts.site.cpu_max_hours, "CPU_MAX_HOURS", facts.site.cpu_qos),
        ("gpu", facts.site.max_hours, "MAX_HOURS", facts.site.qos),
    ):
        limits = [(f"partition {p.name!r}", p.minutes) for p in _partitions(facts, kind)]
        limits.append((f"QOS {qos!r}", walls.get(qos)))
        for whose, limit in limits:
            if limit is not None and hours * 60 > limit:
                text = (
                    f"{key}={hours:g}: {whose} allows {limit / 60:g} hours, so the jobs would wait for ever"
                )
                yield text, f"set {key}={limit / 60:g}; longer stages go on in further segments"


def _asked_type(facts: Facts) -> str:
    """The GPU type that the request names, if it names one."""
    request = facts.site.gpu_request.replace("{type}", facts.site.gpu_type)
    match = re.search(r"(?:gpu:|--gpus-per-node=)([A-Za-z][\w.-]*):", request)
    return match[1] if match else ""


def _gpu_type(facts: Facts) -> Iterator[tuple[str, str]]:
    for partition in _partitions(facts, "gpu"):
        if not partition.gpus:
            continue  # said by `partition`
        kind, count = _asked_type(facts), facts.site.gpus_per_node
        if kind and kind not in partition.gpus:
            text, types = f"GPU_TYPE={kind}: partition {partition.name!r} has no such GPU", [*partition.gpus]
            untyped = "set GPU_REQUEST=--gpus-per-node={gpus}: its GPUs have no types"
            yield text, untyped if types == [""] else f"set GPU_TYPE to one of: {names(filter(None, types))}"
        elif count > (most := partition.gpus[kind] if kind else max(partition.gpus.values())):
            text = f"GPUS_PER_NODE={count}: a node of {partition.name!r} has {most}"
            yield text, f"set GPUS_PER_NODE={most}"


def _gpu_style(facts: Facts) -> Iterator[tuple[str, str]]:
    """One way of asking for GPUs: Slurm refuses two in one job, and --gpus-per-node needs cons_tres."""
    site, request = facts.site, facts.site.gpu_request
    style = next((name for name, form in GPU_STYLES.items() if re.fullmatch(form, request)), None)
    if style is None:
        text = f"GPU_REQUEST={request} is no way to ask for a node's GPUs"
        yield text, "set GPU_REQUEST=--gpus-per-node={gpus} or --gres=gpu:{type}:{gpus}"
        return
    others = re.findall(r"--(?:gres=gpu|gpus)[\w=:-]*", f"{site.extra} {site.gpu_extra}")
    if others:
        text = f"the GPUs are asked for twice: GPU_REQUEST={request} and {others[0]}"
        yield text, f"take {others[0]} out of EXTRA and GPU_EXTRA"
    select = facts.cluster.settings.get("SelectType", "") if facts.cluster else ""
    if style == "--gpus" and select and "cons_tres" not in select:
        yield (
            f"GPU_REQUEST={request} needs select/cons_tres; this cluster has {select}",
            "set GPU_REQUEST=--gres=gpu:{gpus}",
        )


# ----------------------------------------------------------------------------- room and places


def _log_folder(facts: Facts) -> Iterator[tuple[str, str]]:
    """Without its log folder a job ends at once, with no line of output: Slurm does not make the folder."""
    if facts.log_fault:
        text = f"no logs can be written to {facts.log_folder}: {facts.log_fault}"
        yield text, "set BASE_DIR (or NANOCHAT_BASE_DIR) to a folder that you own"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _quota(facts: Facts) -> Iterator[tuple[str, str]]:
    left = facts.room.quota_bytes
    if left is not None and left < facts.need_bytes:
        text = (
            f"the quota has {_gigabytes(left)} left, and the run takes about {_gigabytes(facts.need_bytes)}"
        )
        yield text, "delete old runs, ask for more quota, or set BASE_DIR to another filesystem"


def _disk(facts: Facts) -> Iterator[tuple[str, str]]:
    left = facts.room.free_bytes
    if left is not None and left < facts.need_bytes:
        text = f"the disk has {_gigabytes(left)} left, and the run takes about {_gigabytes(facts.need_bytes)}"
        yield text, "free some space, or set BASE_DIR to another filesystem"


def _inodes(facts: Facts) -> Iterator[tuple[str, str]]:
    known = [n for n in (facts.room.quota_files, facts.room.free_files) if n is not None]
    if known and min(known) < facts.need_files:
        text = f"{min(known):,} more files may be made, and the run makes about {facts.need_files:,}"
        yield text, "delete small files (old environments, caches), or ask for more inodes"


def _scratch(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.scratch_fault:
        text = f"LOCAL_SCRATCH cannot be used: {facts.scratch_fault}"
        yield text, "set LOCAL_SCRATCH to the node's own disk, or to none"


# ----------------------------------------------------------------------------- the files


def _comes(facts: Facts, fault: Fault) -> bool:
    """Whether the plan itself brings the file: its data job fetches, or makes the world."""
    if "data" not in facts.wanted.stage_names or facts.in_job:
        return False
    return bool(fault.asset.source) or facts.wanted.corpus == "world"


def _files(kinds: tuple[str, ...], *, may_come: bool) -> Callable[[Facts], Iterator[tuple[str, str]]]:
    """Files with one kind of fault; the first of each asset speaks for its others."""

    def find(facts: Facts) -> Iterator[tuple[str, str]]:
        by_asset: dict[str, list[Fault]] = {}
        for fault in facts.faults:
            if fault.kind in kinds and not (may_come and _comes(facts, fault)):
                by_asset.setdefault(fault.asset.name, []).append(fault)
        for faults in by_asset.values():
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            yield faults[0].text + more, faults[0].remedy

    return find


def _tokenizer(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.tokenizer is None or "tok_train" in facts.wanted.stage_names:
        return
    for checkpoint, trained in facts.trained_with.items():
        if trained != facts.tokenizer:
            text = f"{facts.wanted.tok_dir} holds another tokenizer than {checkpoint} was trained with"
            yield text, "set --tok-dir to that run's tokenizer, or choose another --run"


def _network(facts: Facts) -> Iterator[tuple[str, str]]:
    lacking = [
        f for f in facts.faults if f.asset.source and f.kind in ("missing", "unlisted", "empty folder")
    ]
    if "data" not in facts.wanted.stage_names or not lacking:
        return
    if facts.network is False or not facts.site.data_node_has_network:
        text = f"{len(lacking)} files are to be fetched, and the node of the data job has no network"
        yield text, f"{FETCH} on a login or transfer node, then submit again"


# ----------------------------------------------------------------------------- programs and the node


def _python(facts: Facts) -> Iterator[tuple[str, str]]:
    if not PYTHONS[0] <= facts.python <= PYTHONS[1]:
        low, high = (".".join(map(str, version)) for version in PYTHONS)
        text = f"this is Python {facts.python[0]}.{facts.python[1]}; {low} to {high} are tested"
        yield text, "bash env/setup.sh, then .venv/bin/python; a module may bring a newer Python"


def _torch(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.site.device != "cuda" or facts.site.container != "none" or not facts.site.gpus_per_node:
        return
    remedy = f"bash env/setup.sh --torch {facts.site.torch if facts.site.torch != 'cpu' else 'cu130'}"
    if facts.torch == "":
        yield "torch is not installed", remedy
    elif facts.torch == "cpu":
        yield "torch is built for the CPU alone, and the plan has GPUs", remedy


def _image(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.image_fault:
        text = f"the container image cannot be used: {facts.image_fault}"
        yield text, "build it (containers/README.md) and set IMAGE to it, or set CONTAINER=none"


def _port(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.port is not None and not facts.port_is_free:
        text = f"MASTER_PORT={facts.port} is taken on this node"
        yield text, "unset MASTER_PORT: the launcher finds a free one"


def _clock(facts: Facts) -> Iterator[tuple[str, str]]:
    controller = facts.cluster.skew_s if facts.cluster else None
    for other, skew in (("the file server", facts.skew_s), ("Slurm's controller", controller)):
        if skew is not None and skew > MAX_SKEW_S:
            text = f"this node's clock and that of {other} differ by {skew:.0f} s"
            yield (
                text,
                "tell the site; until then exclude this node (EXCLUDE), for time limits rest on the clock",
            )


def _gpus(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.gpus is not None and facts.gpus[0] != facts.gpus[1]:
        text = f"Slurm gave {facts.gpus[0]} GPUs, and CUDA_VISIBLE_DEVICES names {facts.gpus[1]}"
        yield (
            text,
            "exclude this node (EXCLUDE) and tell the site; CUDA_VISIBLE_DEVICES must not be set by hand",
        )


CHECKS = (
    _Check("account", _account),
    _Check("partition", _partition),
    _Check("qos", _qos),
    _Check("max time", _max_time),
    _Check("gpu type", _gpu_type),
    _Check("gpu style", _gpu_style),
    _Check("log folder", _log_folder),
    _Check("quota", _quota),
    _Check("disk", _disk),
    _Check("inodes", _inodes),
    _Check("missing files", _files(("missing", "unlisted"), may_come=True)),
    _Check("empty cache", _files(("empty folder",), may_come=True)),
    _Check("corrupt files", _files(("size", "footer", "hash"), may_come=False)),
    _Check("changed files", _files(("time",), may_come=False)),
    _Check("tokenizer", _tokenizer),
    _Check("network", _network),
    _Check("python", _python),
    _Check("torch", _torch),
    _Check("image", _image),
    _Check("port", _port, EXIT_FAULT),
    _Check("scratch", _scratch, EXIT_FAULT),
    _Check("clock", _clock, EXIT_FAULT),
    _Check("gpus", _gpus, EXIT_FAULT),
)
