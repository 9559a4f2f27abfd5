"""Exit codes, whole-file writes and facts about the machine."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat import common


def test_base_dir_follows_override_then_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "env"))
    assert common.base_dir() == tmp_path / "env"
    assert common.base_dir(str(tmp_path / "given")) == tmp_path / "given"
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    assert common.base_dir() == Path.home() / ".cache" / "nanochat"
    assert not (tmp_path / "env").exists()


def test_resolve_keeps_absolute_paths(tmp_path: Path) -> None:
    assert common.resolve(tmp_path, "data/world") == tmp_path / "data" / "world"
    assert common.resolve(tmp_path, "/somewhere") == Path("/somewhere")


def test_atomic_path_commits_whole_files_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with common.atomic_path(target) as temp:
        temp.write_text("new")
        assert not target.exists() and temp.parent == target.parent
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_atomic_path_keeps_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), common.atomic_path(target) as temp:
        temp.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with common.atomic_path(tmp_path / "a") as first, common.atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"  # the outer one renames last


def test_json_round_trip_of_what_python_has_and_json_has_not(tmp_path: Path) -> None:
    import numpy as np

    @dataclasses.dataclass
    class Point:
        where: Path
        size: tuple[int, ...]

    saved = {"point": Point(Path("a/b"), (1, 2)), "nan": float("nan"), "array": np.arange(3), "text": "é"}
    common.write_json(tmp_path / "x.json", saved)
    point = {"where": "a/b", "size": [1, 2]}
    assert common.read_json(tmp_path / "x.json") == {
        "point": point,
        "nan": None,
        "array": [0, 1, 2],
        "text": "é",
    }


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        common.read_json(tmp_path / "x.json")


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert common.sha256_file(tmp_path / "abc") == known


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (None, 0, ""),
        (common.UsageError("no such run"), 2, "error: no such run"),
        (ValueError("width 3"), 2, "ValueError at"),
        (common.Stopped(), 75, "resumes"),
        (KeyboardInterrupt(), 75, "resumes"),
        (OSError(errno.ENOSPC, "full", "/data/x"), 1, "/data/x: the disk is full"),
        (OSError(errno.EACCES, "denied", "/data/x"), 1, "NANOCHAT_BASE_DIR"),
        (RuntimeError("a bug"), 1, "Traceback"),
    ],
)
def test_run_main_maps_failures_to_exit_codes(
    failure: BaseException | None, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> None:
        if failure is not None:
            raise failure

    with pytest.raises(SystemExit) as left:
        common.run_main(main)
    assert left.value.code == code
    shown = capsys.readouterr().err
    assert message in shown
    assert ("Traceback" in shown) == isinstance(failure, RuntimeError)


def test_run_main_passes_a_returned_code_on() -> None:
    with pytest.raises(SystemExit) as left:
        common.run_main(lambda argv: common.EXIT_STOPPED)
    assert left.value.code == 75


def test_a_closed_pipe_is_no_fault() -> None:
    program = "from nanochat.common import run_main\nrun_main(lambda argv: print('x\\n' * 100_000))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.read(1)
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0


def test_print0_is_silent_on_other_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    common.print0("alone")
    monkeypatch.setenv("SLURM_PROCID", "1")
    common.print0("rank 1 of srun")
    monkeypatch.setenv("RANK", "0")
    common.print0("rank 0 of torchrun")
    assert capsys.readouterr().out == "alone\nrank 0 of torchrun\n"


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.1),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_peak_flops_of_known_devices(name: str, teraflops: float) -> None:
    assert common.peak_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize("name", ["AMD EPYC 9654", "NVIDIA RTX A4000", "NVIDIA GeForce RTX 4090 Laptop GPU"])
def test_peak_flops_is_not_guessed(name: str) -> None:
    assert common.peak_flops(name) is None
    assert common.peak_flops("NVIDIA H100", "float32") is None


def test_environment_says_what_ran_and_not_who(tmp_path: Path) -> None:
    facts = common.environment()
    text = json.dumps(facts)
    assert facts["versions"]["python"].startswith("3.") and facts["hardware"]["cores"] >= 1
    assert facts["hardware"]["memory_mib"] > 100
    assert str(Path.home()) not in text and os.uname().nodename not in text


def test_peak_memory_counts_children() -> None:
    """In a small process: a child has to exceed what it takes, and this one may have taken a gigabyte."""
    program = (
        "import subprocess, sys\n"
        "from nanochat.common import peak_rss_mib\n"
        "before = peak_rss_mib()\n"
        "mebibytes = round(before) + 100\n"
        "subprocess.run([sys.executable, '-S', '-c', f\"b'x' * ({mebibytes} << 20)\"], check=True)\n"
        "assert peak_rss_mib() >= mebibytes > before > 1, (peak_rss_mib(), before)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
