"""The tutorials' commands, in order, as they stand; the tiny model takes the place of the laptop's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    return [
        line
        for block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
        for line in block.splitlines()
    ]


def on_the_tiny_model(command: str, base: Path) -> str:
    python = shlex.quote(sys.executable)
    run = ".venv/bin/python -m scripts.pipeline --preset laptop"
    command = command.replace("bash scripts/local_cpu_train.sh", run)
    command = command.replace("laptop", "tiny").replace("~/.cache/nanochat", shlex.quote(str(base)))
    return command.replace(".venv/bin/python", python)


@pytest.mark.slow
def test_local_cpu_quickstart(base: Path) -> None:
    lines = commands("docs/tutorials/01-local-cpu-quickstart.md")
    assert len(lines) >= 6
    for line in lines:
        command = ["bash", "-euo", "pipefail", "-c", on_the_tiny_model(line, base)]
        run = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{line}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
        assert run.stdout.strip(), f"{line} printed nothing"
