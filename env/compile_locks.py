"""Makes the dependency locks `env/locks/{cpu,cu126,cu128,cu130}.txt` from pyproject.toml.

What it is: one universal resolution by `uv pip compile` (Python 3.10 and newer, every platform) for each
version of torch. torch keeps its pinned version and loses its hashes, because its CPU and CUDA wheels share
a version and differ in content. Only cu130, the registry's build, keeps CUDA's packages: those of cu126 and
cu128 are on torch's own index, and torch pins them exactly by itself. The CPU lock loses triton, too.
What it is not: an installer; `env/setup.sh` reads the locks.

Run it after changing a dependency: `python env/compile_locks.py [--upgrade]`. It needs uv and the
package registry. A test compares the locks with pyproject.toml.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "env" / "locks"
# 2.11 is the last with CUDA 12.8,
# for drivers from 570 on that cannot be renewed; 2.13 has CUDA 12.6 and 13.0 (pytorch issue 178665).
TORCH = {"cu130": "2.13.0", "cu128": "2.11.0"}
EXTRAS = ("report", "serve", "slurm", "clean", "bench", "dev")  # not `track`: 40 packages for three options
CUDA = re.compile(r"(nvidia-|cuda-)")


def entries(lock: str) -> list[str]:
    """The requirements of a lock, each with its continuation lines of hashes."""
    return re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", lock, flags=re.MULTILINE)


def strip_torch(entry: str) -> str:
    """torch as a bare `torch==VERSION`; every other entry unchanged."""
    return entry.split()[0] if entry.startswith("torch==") else entry


def compile_universal(torch: str, previous: Path, *, upgrade: bool) -> list[str]:
    """Resolve pyproject.toml for all platforms; versions in `previous` stay unless `upgrade`."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit("uv is not on PATH: install it with `pip install uv`")
    # A wheel folder would put its local version (+cpu) into the lock, which installs nowhere else.
    env = {k: v for k, v in os.environ.items() if k not in ("UV_FIND_LINKS", "PIP_FIND_LINKS")}
    with tempfile.TemporaryDirectory() as folder:
        pin, out = Path(folder, "pin.txt"), Path(folder, "lock.txt")
        pin.write_text(f"torch=={torch}\n", encoding="utf-8")
        if previous.exists():
            shutil.copyfile(previous, out)
        command = [uv, "pip", "compile", "--quiet", str(ROOT / "pyproject.toml"), "--constraint", str(pin)]
        command += [
            "--universal",
            "--python-version",
            "3.10",
            "--generate-hashes",
            "--no-annotate",
            "--no-header",
        ]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--output-file", str(out)]
        command += [word for extra in EXTRAS for word in ("--extra", extra)]
        subprocess.run(command + ["--upgrade"] * upgrade, check=True, env=env)
        return [strip_torch(entry) for entry in entries(out.read_text(encoding="utf-8"))]


def write(name: str, lines: list[str]) -> None:
    (LOCKS / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"env/locks/{name}.txt: {len(lines)} packages")


def main() -> None:
    """Write all locks."""
    parser = argparse.ArgumentParser(description="make env/locks/*.txt from pyproject.toml")
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions, not the locked ones"
    )
    args = parser.parse_args()
    cu130 = compile_universal(TORCH["cu130"], LOCKS / "cu130.txt", upgrade=args.upgrade)
    write("cu130", cu130)
    cu126 = [entry for entry in cu130 if not CUDA.match(entry)]
    write("cu126", cu126)
    write("cpu", [entry for entry in cu126 if not entry.startswith("triton==")])
    # Beside torch and what it asks for, the versions of the newer lock.
    cu128 = compile_universal(TORCH["cu128"], LOCKS / "cu130.txt", upgrade=False)
    write("cu128", [entry for entry in cu128 if not CUDA.match(entry)])


if __name__ == "__main__":
    main()
