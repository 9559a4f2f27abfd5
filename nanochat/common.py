"""What every other module may use: exit codes, errors, places, whole-file writes, facts about the machine.

It is not a drawer for helpers: a function is here only if modules of different layers need it. No torch,
and nothing happens on import. How to look at it:
`python -c "from nanochat.common import environment; print(environment())"`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import platform
import re
import resource
import secrets
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75  # stopped cleanly: run the same command again and it resumes


class UsageError(ValueError):
    """A fault of the command line, a config file or the data that the user gave; the text is the remedy."""


class Stopped(Exception):
    """The run stopped cleanly before its end (deadline, stop file, signal) and can be resumed."""


# ----------------------------------------------------------------------------- places


def base_dir(override: str | None = None) -> Path:
    """Root of all artifacts: `override`, else NANOCHAT_BASE_DIR, else ~/.cache/nanochat. Creates nothing."""
    place = override or os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat"
    return Path(place).expanduser().absolute()


def resolve(base: Path, path: str | Path) -> Path:
    """`path` itself if it is absolute (or starts with ~), else `path` below `base`."""
    return base / Path(path).expanduser()


# ----------------------------------------------------------------------------- files


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a new name beside `path` to write to; the file takes its final name only once it is on the disk.

    A reader sees the old file or the new one, never a part. The temporary name is unique, so two writers
    cannot spoil each other (locks are not to be trusted on Lustre, GPFS or NFS). If the body raises, the
    temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temp
        _fsync(temp)
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    # Some network filesystems refuse to sync a folder; the rename itself has happened by then.
    with contextlib.suppress(OSError):
        _fsync(path.parent)


def json_safe(obj: Any) -> Any:
    """`obj` in JSON's types: dataclasses become dicts, paths text, numpy scalars numbers, NaN null."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        obj = dataclasses.asdict(obj)
    if isinstance(obj, dict):
        return {str(key): json_safe(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [json_safe(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    if hasattr(obj, "tolist"):  # numpy (and torch) scalars and arrays
        return json_safe(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as indented JSON, whole or not at all."""
    text = json.dumps(json_safe(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temp:
        temp.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a broken one is a ValueError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); restore it or delete it") from error


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# ----------------------------------------------------------------------------- programs


def launched() -> tuple[int, int, int]:
    """(rank, local rank, number of ranks) as torchrun says, else Slurm, else those of a single process."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return int(env["RANK"]), int(env.get("LOCAL_RANK", 0)), int(env["WORLD_SIZE"])
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env and "MASTER_ADDR" in env:
        return int(env["SLURM_PROCID"]), int(env.get("SLURM_LOCALID", 0)), int(env["SLURM_NTASKS"])
    return 0, 0, 1


def print0(*args: Any) -> None:
    """Print on rank 0 only, at once; which rank this is, the launcher's variables say."""
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0:
        print(*args, flush=True)


_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or set NANOCHAT_BASE_DIR elsewhere; a rerun resumes",
    errno.EDQUOT: "the quota is used up: free some space or set NANOCHAT_BASE_DIR elsewhere; a rerun resumes",
    errno.EACCES: "no permission: choose a place that you own with --base-dir or NANOCHAT_BASE_DIR",
    errno.EPERM: "not permitted: choose a place that you own with --base-dir or NANOCHAT_BASE_DIR",
    errno.EROFS: "the filesystem is read-only: set NANOCHAT_BASE_DIR to a place that can be written",
    errno.ENOTDIR: "a part of this path is a file: set NANOCHAT_BASE_DIR (or --base-dir) to a folder",
    errno.ENOENT: "no such file: an earlier stage has not run, or a path is mistyped",
}


def explain(error: BaseException) -> tuple[int, str | None]:
    """Exit code and message of a failure; no message means that the traceback is the message."""
    if isinstance(error, Stopped):
        return EXIT_STOPPED, str(error) or "stopped; the same command resumes"
    if isinstance(error, KeyboardInterrupt):
        return EXIT_STOPPED, "interrupted; the same command resumes from the last checkpoint"
    if isinstance(error, UsageError):
        return EXIT_USAGE, f"error: {error}"
    if isinstance(error, ValueError):
        # Not always the user's fault, so the place is named.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return EXIT_USAGE, f"error: {error}\n  ({place})"
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = f"{error.filename}: " if error.filename else ""
        return EXIT_FAULT, f"error: {place}{_REMEDIES[error.errno]}"
    return EXIT_FAULT, None


def run_main(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Run `main(argv)` and leave the process with the project's exit codes (0, 1, 2, 75).

    A fault that the user can mend is one message on stderr; a fault of ours is a traceback.
    """
    try:
        code = main(sys.argv[1:]) or EXIT_DONE
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_DONE
    except (Exception, KeyboardInterrupt) as error:
        code, message = explain(error)
        if message is None:
            traceback.print_exc()
        else:
            print(message, file=sys.stderr, flush=True)
    sys.exit(code)


# ----------------------------------------------------------------------------- the machine

# Dense bfloat16 tensor-core peaks in TFLOP/s, from the vendors' data sheets (where a sheet gives the
# figure "with sparsity", half of it). The first name that stands as whole words in the device's name counts.
_BF16_TFLOPS = {
    "GB300": 2500.0, "GB200": 2500.0, "B300": 2250.0, "B200": 2250.0, "B100": 1750.0,
    "GH200": 989.4, "H200 NVL": 835.5, "H200": 989.4, "H100 NVL": 835.5, "H100 PCIe": 756.5, "H100": 989.4,
    "H800": 989.4, "H20": 148.0, "A100": 312.0, "A800": 312.0,
    "A40": 149.7, "A30": 165.0, "A10G": 70.0, "A10": 125.0,
    "L40S": 362.1, "L40": 181.1, "L4": 121.0, "RTX 6000 Ada": 364.2, "RTX A6000": 154.8,
    "RTX 5090": 209.5, "RTX 4090": 165.2, "RTX 3090": 71.0,
    "MI355X": 2516.6, "MI325X": 1307.4, "MI300X": 1307.4, "MI250X": 383.0, "MI210": 181.0,
}  # fmt: skip


def peak_flops(device_name: str, dtype: str = "bfloat16") -> float | None:
    """Dense peak of one accelerator in FLOP/s for `bfloat16` (or `float16`), or None where it is not known.

    A model FLOPs utilisation from a guessed peak is worse than none, so CPUs, float32 (whose rate depends
    on the TF32 switch) and unlisted devices give None.
    """
    if dtype not in ("bfloat16", "float16") or "laptop" in device_name.lower():
        return None
    for name, teraflops in _BF16_TFLOPS.items():
        if re.search(rf"\b{name}\b", device_name, re.IGNORECASE):
            return teraflops * 1e12
    return None


def peak_rss_mib() -> float:
    """Largest resident memory so far, in MiB: of this process, or of its biggest finished child."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / unit


def bfloat16_units() -> str | None:
    """What multiplies bfloat16 in this CPU: "AMX", else "AVX512-BF16", which may be slower than float32's
    own units (nanochat.probe measures it); None: it is emulated, and far slower."""
    with contextlib.suppress(OSError):
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
        units = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
        return next((name for flag, name in units.items() if flag in words), None)
    return None


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    return platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """CPU model, usable cores, memory in MiB, and the GPUs' names if torch is already imported."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total >> 20
    found: dict[str, Any] = {"cpu": _cpu_model(), "cores": usable, "memory_mib": memory}
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_available():
        found["gpus"] = [cuda.get_device_name(index) for index in range(cuda.device_count())]
    return found


def _output(command: list[str]) -> str | None:
    """What a command prints, stripped, or None where it is absent or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def git_state() -> dict[str, Any]:
    """Commit of this code and whether the tree differs from it.

    A copy (an image, the code of a Slurm run) says NANOCHAT_COMMIT, with `-dirty` behind it if it differs.
    """
    if said := os.environ.get("NANOCHAT_COMMIT"):
        return {"commit": said.removesuffix("-dirty"), "dirty": said.endswith("-dirty")}
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    commit = _output([*git, "rev-parse", "HEAD"])
    if commit is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_output([*git, "status", "--porcelain", "--untracked-files=no"]))}


def environment() -> dict[str, Any]:
    """What a result depends on beside the config, for env.json. No host, user or home folder is in it."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "pyarrow", "tiktoken", "safetensors"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {**git_state(), "versions": versions, "platform": platform.platform(), "hardware": hardware()}
