"""The run folder: who may train in it, its markers, and every way to ask for a stop."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanochat.common import UsageError, read_json, write_json
from nanochat.config import BaseTrain
from nanochat.run_folder import FREE, RunFolder, StopFlag, claim

CONFIG = BaseTrain(run="x", depth=2)


def train_a_little(folder: RunFolder) -> None:
    folder.start()
    (folder.path / "checkpoints" / "step_0000001").mkdir(parents=True)


def markers(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()} & {"DONE", "STOPPED", "FAULT", "STOP"}


# ----------------------------------------------------------------------------- claims


def test_a_claim_makes_the_folder_and_records_the_config(base: Path) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None and folder.path == base / "base_x"
    assert BaseTrain(**read_json(folder.path / "config.json")) == CONFIG


def test_another_config_is_refused_by_name_and_nothing_changes(base: Path) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None
    train_a_little(folder)
    folder.mark("STOPPED", {})
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with pytest.raises(UsageError, match=r"depth: there 2, now 3; matrix_lr: there 0\.02, now 0\.5") as error:
        claim("base", dataclasses.replace(CONFIG, depth=3, matrix_lr=0.5))
    assert "--run" in str(error.value) and "--fresh" in str(error.value)
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_in_which_another_process_trains_is_refused(
    base: Path, fresh: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    code = "from nanochat.config import BaseTrain as B; from nanochat.run_folder import claim;"
    code += " f = claim('base', B(run='x', depth=2)); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(UsageError, match=rf"process {other.pid} on .* trains in it; stop that one"):
            claim("base", dataclasses.replace(CONFIG, fresh=fresh))
        with monkeypatch.context() as job:
            job.setenv("SLURM_JOB_ID", "7")
            assert claim("base", CONFIG) is not None
            assert f"warning: {base / 'base_x'}: process {other.pid} on" in capsys.readouterr().out
        other.kill()
    assert claim("base", dataclasses.replace(CONFIG, fresh=fresh)) is not None


def test_what_does_not_change_the_training_may_change(base: Path) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None
    train_a_little(folder)
    new = {"keep_last": 5, "save_every_steps": 7, "device_batch_rows": 4, "threads": 1, "max_minutes": 3.0}
    assert new.keys() <= FREE
    assert claim("base", dataclasses.replace(CONFIG, **new)) is not None  # type: ignore[arg-type]


def test_a_config_that_never_trained_may_be_corrected(base: Path) -> None:
    claim("base", dataclasses.replace(CONFIG, context=64))
    folder = claim("base", CONFIG)
    assert folder is not None and read_json(folder.path / "config.json")["context"] == 2048


def test_fresh_moves_the_old_run_aside(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None
    train_a_little(folder)
    folder.mark("DONE", {})
    again = claim("base", dataclasses.replace(CONFIG, depth=3, fresh=True))
    assert again is not None and not again.is_done()
    (old,) = base.glob("base_x.old.*")
    assert (old / "checkpoints" / "step_0000001").is_dir() and str(old) in capsys.readouterr().out


def test_a_finished_run_is_not_claimed_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None
    train_a_little(folder)
    folder.mark("DONE", {})
    assert claim("base", CONFIG) is None
    with pytest.raises(UsageError, match="another config"):
        claim("base", dataclasses.replace(CONFIG, depth=3))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert claim("base", CONFIG) is not None  # several ranks must agree before one of them leaves


# ----------------------------------------------------------------------------- markers


def test_there_is_one_marker_and_it_is_the_last_word(base: Path) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None
    folder.start()
    folder.mark("STOPPED", {"step": 3})
    assert markers(folder) == {"STOPPED"}
    folder.fault(ValueError("no such shard"))
    assert markers(folder) == {"FAULT"}
    assert read_json(folder.path / "FAULT")["reason"] == "ValueError: no such shard"
    (folder.path / "STOP").touch()
    folder.start()
    assert markers(folder) == set()
    folder.mark("DONE", {})
    folder.fault(ValueError("too late"))
    assert markers(folder) == {"DONE"}
    assert len(read_json(folder.path / "env.json")["attempts"]) == 2


def test_a_fault_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    RunFolder(tmp_path / "file" / "base_x").fault(ValueError("the real reason"))


def test_a_broken_config_json_is_named(base: Path) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None
    train_a_little(folder)
    (folder.path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        claim("base", CONFIG)
    write_json(folder.path / "config.json", CONFIG)
    assert claim("base", CONFIG) is not None


# ----------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", StopFlag.SIGNALS)
def test_a_signal_sets_the_flag_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        os.kill(os.getpid(), number)  # torchrun passes on what the terminal has sent already
    assert signal.getsignal(number) is before


def test_a_later_second_interrupt_ends_at_once() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.first_s is not None
        stop.first_s -= 3
        os.kill(os.getpid(), signal.SIGTERM)  # only Ctrl-C is impatient
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_deadline_sets_the_flag() -> None:
    assert StopFlag(0.0).is_set() and not StopFlag(None).is_set()
    soon = StopFlag(0.001)
    assert not soon.is_set()
    time.sleep(0.07)
    assert soon.is_set()


def test_a_stop_file_is_seen(base: Path) -> None:
    folder = claim("base", CONFIG)
    assert folder is not None and not folder.stop_requested()
    (folder.path / "STOP").touch()
    assert folder.stop_requested()
