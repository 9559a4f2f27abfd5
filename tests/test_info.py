"""`nanochat info`, its self-test, and the short names of the programs: each fault is found and named."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat import accelerator, info, selftest
from nanochat.accelerator import Gpus, judge
from nanochat.common import EXIT_DONE, EXIT_FAULT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
H100 = ("NVIDIA H100, 81559 MiB",)


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", *words], env=env, cwd=variables.get("HOME", ROOT), capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


# ----------------------------------------------------------------------------- GPUs

MISFITS = [
    ("cu130", Gpus("570.124.06", H100), "", "570.124.06 is too old for CUDA 13.0", "CUDA 12.x", EXIT_FAULT),
    ("cu126", Gpus("470.57", H100), "", "old for CUDA 12.6, which needs 525", "no torch fits", EXIT_FAULT),
    ("cu130", Gpus(), "", "no NVIDIA driver: it computes on the CPU", "variant cpu", EXIT_DONE),
    ("cu130", Gpus("580.95.05"), "apptainer", "no GPU is to be seen", "apptainer run --nv", EXIT_DONE),
    ("cu130", Gpus("580.95.05"), "docker", "no GPU is to be seen", "--gpus all", EXIT_DONE),
    ("cu130", Gpus("580.95.05"), "", "no GPU is to be seen", "CUDA_VISIBLE_DEVICES", EXIT_DONE),
    ("cpu", Gpus("580.95.05", H100), "", "built for the CPU alone, and there are GPUs", "cu130", EXIT_DONE),
]  # fmt: skip


@pytest.mark.parametrize(("build", "found", "container", "text", "remedy", "code"), MISFITS)
def test_a_misfit_of_torch_and_gpus_is_named(
    build: str, found: Gpus, container: str, text: str, remedy: str, code: int
) -> None:
    (finding,) = judge(build, found, container)
    assert text in finding.text and remedy in finding.remedy and finding.code == code


@pytest.mark.parametrize(
    ("build", "found"),
    [("cu130", Gpus("580.65.06", H100)), ("cu128", Gpus("525.60", H100)), ("cu140", Gpus("600.1", H100)),
     ("cpu", Gpus()), ("", Gpus()), (None, Gpus()), ("rocm7.1", Gpus())],
)  # fmt: skip
def test_what_fits_gives_no_remark(build: str | None, found: Gpus) -> None:
    assert list(judge(build, found)) == []


def test_gpus_as_the_node_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "NVIDIA H100 80GB HBM3, 580.95.05, 81559\nNVIDIA H100 80GB HBM3, 580.95.05, 81559"
    program(tmp_path, "nvidia-smi", f"cat <<'END'\n{rows}\nEND")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert accelerator.look() == Gpus("580.95.05", ("NVIDIA H100 80GB HBM3, 81559 MiB",) * 2)
    program(tmp_path, "nvidia-smi", "echo 'No devices were found'; exit 6")
    module = tmp_path / "version"
    module.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n")
    monkeypatch.setattr(accelerator, "KERNEL_MODULE", module)
    assert accelerator.look() == Gpus("580.95.05")
    module.unlink()
    assert accelerator.look() == Gpus()


# ----------------------------------------------------------------------------- the table


def test_what_is_here(base: Path) -> None:
    found = info.look(base)
    assert json.loads(json.dumps(found)) == found
    assert found["places"]["base folder"] == str(base) and found["places"]["fault"] is None
    assert found["torch"]["version"] and found["machine"]["cores"].split()[0].isdigit()
    assert info.table(found).row_count == sum(map(len, found.values()))


def test_remarks_name_what_is_amiss(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(base))
    (base / "runs").touch()
    found = info.look(base / "runs" / "here")
    assert found["compiler"]["C++"] is None
    found["fabric"] = {"InfiniBand": ["mlx5_0:1 4: ACTIVE, 400 Gb/sec"], "libibverbs": None}
    found["slurm"]["version"] = "slurm 22.05"  # and its commands are not on this PATH
    remarks = list(info.remarks(found))
    assert {r.check for r in remarks} >= {"compiler", "fabric", "base folder", "slurm"}
    assert all(r.remedy and r.text for r in remarks)
    assert "sbatch is not on PATH" in str(next(r for r in remarks if r.check == "slurm"))


def test_fabric_and_container(tmp_path: Path) -> None:
    port = tmp_path / "infiniband" / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    assert info.devices(tmp_path / "infiniband") == ["mlx5_0:1 4: ACTIVE, 400 Gb/sec (4X NDR)"]
    assert (
        info.container({}, tmp_path) == ""
        and info.container({"APPTAINER_CONTAINER": "x"}, tmp_path) == "apptainer"
    )
    (tmp_path / ".dockerenv").touch()
    assert info.container({}, tmp_path) == "docker"


# ----------------------------------------------------------------------------- the self-test


@pytest.mark.rust
def test_self_test_passes() -> None:
    parts = list(selftest.run())
    assert [part.name for part in parts][:3] == ["import", "tokenizer", "step, cpu"]
    assert all(part.ok is not False for part in parts), parts


@pytest.mark.rust
@pytest.mark.parametrize(
    ("target", "name", "failing"),
    [("nanochat.tokenizer", "Tokenizer.decode", "tokenizer"),
     ("nanochat.optimizers", "Optimizers.step", "step, cpu"),
     ("nanochat.encoding", "import_rustbpe", "import")],
)  # fmt: skip
def test_self_test_names_the_part_that_fails(
    target: str, name: str, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module(target)
    monkeypatch.setattr(f"{target}.{name}", lambda *_: None)
    assert [part.name for part in selftest.run() if part.ok is False] == [failing]


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    done = run("scripts.info", "--self-test", PYTHONPATH=f"{tmp_path}:{ROOT}", HOME=str(tmp_path))
    assert (
        done.returncode == EXIT_FAULT
        and "libtorch_cpu.so" in done.stdout
        and "FAILED (import)" in done.stdout
    )


@pytest.mark.slow
@pytest.mark.rust
def test_self_test_needs_no_network_and_no_home(tmp_path: Path) -> None:
    """In a network namespace of its own, where not even the loopback is up."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    command = ["unshare", "-rn", sys.executable, "-m", "scripts", "info", "--self-test", "--json"]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    found = json.loads(done.stdout)
    assert done.returncode == EXIT_DONE and found["failed"] == [], done.stderr
    assert sum(part["seconds"] for part in found["parts"]) < 10
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------- the short names


def test_the_console_script_is_the_dispatcher() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["nanochat"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_without_arguments_the_apps_are_listed() -> None:
    from scripts.__main__ import APPS

    done = run("scripts")
    assert done.returncode == EXIT_DONE
    for app, script in APPS.items():
        assert f"    {app} " in done.stdout and f"(scripts.{script})" in done.stdout
    # the web server is another's work in progress; where it is, it is served
    missing = [script for script in APPS.values() if not (ROOT / "scripts" / f"{script}.py").exists()]
    assert missing in ([], ["chat_web"])


@pytest.mark.slow
def test_an_app_gets_its_words_and_gives_its_exit_code(base: Path) -> None:
    done = run("scripts", "info", "--json", "--base-dir", str(base / "x"))
    assert json.loads(done.stdout)["places"]["base folder"] == str(base / "x"), done.stderr
    assert run("scripts", "info", "--jsno", NANOCHAT_OFFLINE="1").returncode == 2
    for name in ("no_such_app", "../info", "__init__"):
        done = run("scripts", name)
        assert done.returncode == 2 and "apps are prepare, train" in done.stderr


@pytest.mark.slow
def test_an_app_without_a_network_says_so_at_once(base: Path) -> None:
    variables = {
        "NANOCHAT_OFFLINE": "1",
        "HF_ENDPOINT": "http://192.0.2.1:9",
    }  # an address that never answers
    done = run("scripts", "prepare", "--preset", "speedrun", **variables)
    assert done.returncode == 2 and "offline mode" in done.stderr and not list(base.iterdir())
