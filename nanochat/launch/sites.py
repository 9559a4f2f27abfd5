"""Site files: what differs from cluster to cluster, as `KEY=value` lines in `env/sites/NAME.env`.

What it is: the list of legal keys, a parser (a site file is read, never executed), and `load`, which layers
command line > environment (`NANOCHAT_KEY`) > `.env.local` > site file > defaults. Values may use the site's
own variables (`$WORK/nanochat`). What it is not: Slurm's flags (`sbatch.py`). Look at one: `python -m
scripts.launch site lab`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from nanochat.common import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "env" / "sites"
LOCAL = ".env.local"  # in the clone, ignored by git: the user's account and the like
LINE = re.compile(r"([A-Za-z_]\w*)\s*=(.*)")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
EXPORT = re.compile(r"ENV_[A-Za-z_]\w*")
Container = Literal["none", "apptainer", "pyxis", "environment"]
FILES = (".sif", ".sqsh", ".toml")  # images and environments that are files, and not names in a registry
ASK = "?"  # in a site file: nobody can know this value for the user
TRUE, FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off")

ANY_TYPE, ONE_TYPE = "--gpus-per-node={gpus}", "--gpus-per-node={type}:{gpus}"

NAME = r"[\w.@+-]*"  # one word of Slurm's
NAMES = r"[\w.@+,-]*"
WORDS = r"[\w.@+,=:/%&|()\[\]* -]*"
TEXT = r"[^\x00-\x1f\x7f]*"


def key(default: Any, help: str, pattern: str = TEXT) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "pattern": pattern})


@dataclasses.dataclass(frozen=True)
class Site:
    """One cluster. The field `gpu_partition` is the key `GPU_PARTITION` of a site file."""

    status: str = key("", "where these values come from: tested, or from documentation and not run")
    account: str = key("", "account that pays; empty: Slurm's default", NAME)
    qos: str = key("", "QOS of the GPU jobs; empty: Slurm's default", NAME)
    cpu_qos: str = key("", "QOS of the CPU jobs; empty: Slurm's default", NAME)
    cpu_partition: str = key("", "partition of the CPU jobs; empty: that of the first job, or Slurm's", NAMES)
    gpu_partition: str = key("", "partition of the GPU jobs; empty: the one in sinfo that has them", NAMES)
    gpu_type: str = key("", "GPU as Slurm names it (h100); empty: any, and estimates are for an A100", NAME)
    gpu_request: str = key(
        ANY_TYPE, "how a node's GPUs are asked for, with {type} and {gpus}", r"--[\w:={}-]+"
    )
    gpus_per_node: int = key(8, "GPUs of a node")
    nodes: int = key(1, "nodes of a training job")
    ranks_per_node: int = key(0, "training processes of a node; 0: one a GPU")
    cpus_per_gpu: int = key(8, "CPU cores asked for with each GPU")
    cpus: int = key(8, "CPU cores of a CPU job")
    gpu_memory: str = key("", "--mem of the GPU jobs (0: all of the node); empty: do not ask", r"\d*[KMGT]?")
    cpu_memory: str = key("", "--mem of the CPU jobs; empty: do not ask", r"\d*[KMGT]?")
    max_hours: float = key(12.0, "longest time limit of a GPU job")
    cpu_max_hours: float = key(12.0, "longest time limit of a CPU job")
    chain: Literal["segments", "none"] = key("segments", "none: a stage must fit into one time limit")
    stop_margin_s: int = key(300, "seconds before the limit at which a stage saves and stops; 0: never")
    can_submit_from_job: bool = key(True, "whether a job may submit jobs")
    data_node_has_network: bool = key(True, "whether CPU jobs reach the internet")
    base_dir: str = key("", "artifacts, on a filesystem that all nodes see; empty: ~/.cache/nanochat")
    local_scratch: str = key("", "folder on a node's own disk, as its jobs see it, such as $TMPDIR")
    stage_local: bool = key(False, "copy the data to local_scratch before training")
    modules: str = key("", "modules to load in each job, in this order", WORDS)
    python: str = key("", "Python of the jobs; empty: .venv/bin/python of the clone")
    torch: str = key("cu130", "torch that env/setup.sh installs (a login node has no GPU to tell)", NAME)
    container: Container = key("none", "what the stages run in")
    image: str = key("", "container image; with environment, its name")
    binds: str = key("", "folders to mount in the container, comma separated", TEXT)
    net_ifname: str = key("", "network interfaces for NCCL and gloo, such as ib0", NAMES)
    host_suffix: str = key("", "suffix that makes a node's name that of its fast interface", NAME)
    node_check: bool = key(True, "look at the nodes of a training job before it begins")
    exclude: str = key("", "nodes never to use", r"[\w.,\[\]-]*")
    price_per_gpu_hour: float = key(0.0, "for the cost; 0: GPU-hours only")
    extra: str = key("", "further sbatch flags of all jobs", WORDS)
    cpu_extra: str = key("", "further sbatch flags of the CPU jobs", WORDS)
    gpu_extra: str = key("", "further sbatch flags of the GPU jobs", WORDS)
    srun_extra: str = key("", "further srun flags of the GPU jobs", WORDS)
    mail_user: str = key("", "address for mail when the run ends; empty: none", r"[\w.@+-]*")
    device: Literal["cuda", "cpu"] = key("cuda", "what the stages compute on (cpu: for a test cluster)")
    exports: dict[str, str] = dataclasses.field(default_factory=dict)  # ENV_NAME=value: variables of the jobs
    name: str = "generic"

    @property
    def ranks(self) -> int:
        """Training processes on one node."""
        return self.ranks_per_node or self.gpus_per_node


KEYS = {f.name.upper(): f for f in dataclasses.fields(Site) if "help" in f.metadata}
_TYPES = get_type_hints(Site)


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.env"))


def load(name: str | None, overrides: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> Site:
    """The site `name` (else NANOCHAT_SITE, else `generic`) under the user's own layers.

    `overrides` are the command line's `KEY=value` words. Unknown keys are refused.
    """
    local = read(ROOT / LOCAL) if (ROOT / LOCAL).is_file() else {}
    chosen = name or environ.get("NANOCHAT_SITE") or local.pop("SITE", None) or "generic"
    local.pop("SITE", None)
    path = Path(chosen) if chosen.endswith(".env") else FOLDER / f"{chosen}.env"
    if not path.is_file():
        raise UsageError(f"--site {chosen}: there is no {path}; sites are {', '.join(names())}")
    own = {k: environ[f"NANOCHAT_{k}"] for k in KEYS if environ.get(f"NANOCHAT_{k}")}
    if paying := environ.get("SLURM_JOB_ACCOUNT") or environ.get("SBATCH_ACCOUNT"):
        own.setdefault("ACCOUNT", paying)
    layers = [(str(path), read(path)), (LOCAL, local), ("environment", own), ("command line", overrides)]
    values: dict[str, Any] = {}
    exports: dict[str, str] = {}
    for origin, layer in layers:
        for word, text in layer.items():
            if EXPORT.fullmatch(word):
                exports[word[4:]] = text
            else:
                values[word] = _convert(word, text, origin, environ)
    _refuse_asked(path.stem, values)
    if values.get("IMAGE", "").endswith(FILES):  # the jobs begin in another folder
        values["IMAGE"] = os.path.abspath(os.path.expanduser(values["IMAGE"]))
    values.setdefault("GPU_REQUEST", ONE_TYPE if values.get("GPU_TYPE") else ANY_TYPE)
    return Site(**{k.lower(): v for k, v in values.items()}, exports=exports, name=path.stem)


def read(path: Path) -> dict[str, str]:
    """The `KEY=value` lines of a file; quotes around a value are taken off, `#` begins a comment line."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise UsageError(f"{path}:{number}: {line!r} is not KEY=value")
        word, value = match[1], match[2].strip()
        if word in found:
            raise UsageError(f"{path}:{number}: {word} stands there twice")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[word] = value
    return found


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(`KEY=value` words, the other words) of a command line; a key is written in capitals."""
    pairs = [re.fullmatch(r"([A-Z][A-Z0-9]*(?:_\w+)*)=(.*)", word, re.DOTALL) for word in words]
    rest = [word for word, match in zip(words, pairs, strict=True) if not match]
    return {match[1]: match[2] for match in pairs if match}, rest


def _convert(word: str, text: str, origin: str, environ: Mapping[str, str]) -> Any:
    """The value of a key in its type; refuses an unknown key, and what is not a legal value of it."""
    if word not in KEYS:
        raise _unknown(word, origin)
    field, kind = KEYS[word], _TYPES[word.lower()]
    if text == ASK:
        return ASK
    text = _expand(word, text, origin, environ)
    if choices := get_args(kind):
        if text not in choices:
            raise UsageError(f"{origin}: {word}={text}: use one of {', '.join(choices)}")
    elif kind is bool:
        if text.lower() not in TRUE + FALSE:
            raise UsageError(f"{origin}: {word}={text}: use 1 or 0")
        return text.lower() in TRUE
    elif kind in (int, float):
        return _number(word, text, origin, kind)
    elif not re.fullmatch(field.metadata["pattern"], text):
        raise UsageError(
            f"{origin}: {word}={text!r} has characters that cannot be in {field.metadata['help']}"
        )
    return text


def _number(word: str, text: str, origin: str, kind: type) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if value < 0 or value == float("inf"):
        a = "whole number" if kind is int else "number"
        raise UsageError(f"{origin}: {word}={text}: use a {a}, 0 or more") from None
    return value


def _expand(word: str, text: str, origin: str, environ: Mapping[str, str]) -> str:
    """`$NAME` replaced by the variable's value; LOCAL_SCRATCH is replaced on the node, where it is set."""
    if word == "LOCAL_SCRATCH":
        return text

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not environ.get(name):
            raise UsageError(f"{origin}: {word}={text} needs the variable {name}, which is not set here")
        return environ[name]

    return VARIABLE.sub(value, text)


def _unknown(word: str, origin: str) -> UsageError:
    close = difflib.get_close_matches(word.upper(), KEYS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if word.startswith(("NCCL_", "UCX_", "FI_", "GLOO_", "OMP_", "MIOPEN_", "RCCL_")):
        hint = f"; a variable of the jobs is written ENV_{word}"
    return UsageError(f"{origin}: unknown key {word}{hint}\nkeys are: {', '.join(KEYS)}, and ENV_NAME")


def _refuse_asked(site: str, values: Mapping[str, Any]) -> None:
    if asked := [word for word, value in values.items() if value == ASK]:
        lines = "".join(f"\n  {word}=...   {KEYS[word].metadata['help']}" for word in asked)
        raise UsageError(f"site {site}: set these in {LOCAL}, in the environment, or in the command:{lines}")
