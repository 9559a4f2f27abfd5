"""The tutorials' commands, in order, as they stand; the tiny model takes the place of the laptop's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.dataset import write_shards

ROOT = Path(__file__).resolve().parent.parent
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


@pytest.mark.slow
def test_add_a_task() -> None:
    """The page's code, as one program."""
    page = (ROOT / "docs/how-to/add-a-task.md").read_text(encoding="utf-8")
    program = "\n".join(PYTHON.findall(page))
    assert program.count("assert") == 3
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.rust
def test_train_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("wikipedia", "books", "reddit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.md").write_text(text, encoding="utf-8")
    write_shards(tmp_path / "data", [text], [text])
    page = "docs/how-to/train-a-tokenizer.md"
    for line in commands(page):
        command = re.sub(r"32768|65536", "400", on_the_tiny_model(line, tmp_path))
        subprocess.run(["bash", "-euc", command], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "tok" / "compression.svg").exists() and (tmp_path / "tok/chat/tokenizer.json").exists()
    for source in PYTHON.findall((ROOT / page).read_text(encoding="utf-8")):
        subprocess.run([sys.executable, "-c", source], cwd=ROOT, check=True)
