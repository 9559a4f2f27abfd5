"""Makes the dependency locks `env/locks/{cpu,cu130}.txt` from pyproject.toml.

What it is: one universal resolution by `uv pip compile` (Python 3.10 and newer, every platform),
written twice. torch keeps its pinned version and loses its hashes, because its CPU and CUDA wheels
share a version and differ in content; the CPU lock also loses CUDA's packages and triton.
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
TORCH = "torch==2.13.0"
EXTRAS = ("report", "serve", "slurm", "clean", "bench", "dev")  # not `track`: 40 packages for three options
CUDA_ONLY = re.compile(r"(nvidia-|cuda-|triton\b)")


def entries(lock: str) -> list[str]:
    """The requirements of a lock, each with its continuation lines of hashes."""
    return re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", lock, flags=re.MULTILINE)


def strip_torch(entry: str) -> str:
    """torch as a bare `torch==VERSION`; every other entry unchanged."""
    return TORCH if re.match(r"torch==", entry) else entry


def compile_universal(previous: Path, *, upgrade: bool) -> str:
    """Resolve pyproject.toml for all platforms; versions in `previous` stay unless `upgrade`."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit("uv is not on PATH: install it with `pip install uv`")
    # A wheel folder would put its local version (+cpu) into the lock, which installs nowhere else.
    env = {k: v for k, v in os.environ.items() if k not in ("UV_FIND_LINKS", "PIP_FIND_LINKS")}
    with tempfile.TemporaryDirectory() as folder:
        pin, out = Path(folder, "pin.txt"), Path(folder, "lock.txt")
        pin.write_text(TORCH + "\n", encoding="utf-8")
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
        return out.read_text(encoding="utf-8")


def main() -> None:
    """Write both locks."""
    parser = argparse.ArgumentParser(description="make env/locks/*.txt from pyproject.toml")
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions, not the locked ones"
    )
    args = parser.parse_args()
    cuda = [strip_torch(e) for e in entries(compile_universal(LOCKS / "cu130.txt", upgrade=args.upgrade))]
    for name, lines in {"cu130.txt": cuda, "cpu.txt": [e for e in cuda if not CUDA_ONLY.match(e)]}.items():
        (LOCKS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"env/locks/{name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
