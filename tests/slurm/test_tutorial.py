"""The commands of the tutorial on clusters, in order, as they stand, on the lab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drive import LIMIT_S, ROOT, User

pytestmark = pytest.mark.slurm
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    page = (ROOT / "docs" / "tutorials" / "02-hpc-first-job.md").read_text(encoding="utf-8")
    return [line for block in BLOCK.findall(page) for line in block.splitlines()]


def test_first_job(user: User) -> None:
    clone = user.folder / "clone"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "target", "__pycache__", ".*_cache")
    )
    (clone / ".venv" / "bin").mkdir(parents=True)
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    env = {**user.env, "HOME": str(user.folder)}
    user.base = user.folder / "nanochat"
    user.env["NANOCHAT_BASE_DIR"] = str(user.base)
    for line in commands():
        line = line.replace("--preset speedrun", "--preset tiny")  # the lab's CPUs would take years
        if exported := re.fullmatch(r"export (\w+)=(.*)", line):
            env[exported[1]] = exported[2].replace("$HOME", env["HOME"])
            continue
        if "scripts.launch cost" in line:  # "when status says done everywhere"
            user.wait_empty("first")
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=clone,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0 and done.stdout, f"{line}\n{done.stdout}\n{done.stderr}"
        if "sbatch" in line:
            user.wait("the other jobs", lambda: len(user.queue()) > 8)
        elif "scripts.launch logs" in line or "launch stop" in line:
            user.wait("a job to end", lambda: "running" not in str(user.status("first")) or not user.queue())
    assert {state for state, _ in user.status("first").values()} == {"done"}
    assert sorted(os.listdir(Path(env["HOME"]) / "nanochat" / "runs" / "first" / "report"))
