"""metrics.jsonl through kills, resumes and full disks; the progress line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from nanochat import metrics
from nanochat.metrics import Ema, MetricsLog, Progress, format_seconds


def steps(path: Path) -> list[int]:
    return [record["step"] for record in metrics.read(path)]


def test_records_come_back_in_order(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.log(1, loss=2.5, samples=[{"prompt": "é", "text": "x\ny"}])
    log.log(2, loss=float("nan"))
    first, second = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert first["step"] == 1 and first["loss"] == 2.5 and first["samples"][0]["text"] == "x\ny"
    assert second["loss"] is None and second["time"] >= first["time"] > 1.6e9


def test_a_rank_without_a_path_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MetricsLog(None, resume_step=3).log(1, loss=1.0)
    assert list(tmp_path.iterdir()) == []


def test_resume_drops_the_lost_part(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 8):
        MetricsLog(path).log(step)
    log = MetricsLog(path, resume_step=4)
    log.log(5)
    assert steps(path) == [1, 2, 3, 4, 5]
    MetricsLog(path, resume_step=-1)
    assert steps(path) == []


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).log(1)
    with open(path, "ab") as file:
        file.write(b'{"step": 2, "text": "\xc3')
    assert steps(path) == [1]
    MetricsLog(path).log(3)
    assert steps(path) == [1, 3]
    MetricsLog(path, resume_step=1)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    assert metrics.read(tmp_path / "absent.jsonl") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the device that is always full")
def test_a_full_disk_does_not_stop_training(capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog("/dev/full")
    for step in range(250):
        log.log(step, loss=1.0)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 3 and log.failures == 250
    assert "No space left" in warnings[0] and "201 writes have failed" in warnings[2]


def test_a_folder_that_cannot_be_made_does_not_stop_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    MetricsLog(tmp_path / "file" / "metrics.jsonl").log(1)
    assert "training goes on" in capsys.readouterr().err


def test_the_average_is_debiased() -> None:
    ema = Ema(0.9)
    assert ema.value != ema.value  # NaN: no value yet
    assert ema.update(4.0) == pytest.approx(4.0)
    assert ema.update(2.0) == pytest.approx((0.9 * 4 + 2) / 1.9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (273_600, "3 d 04 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_log_gets_a_line_per_interval_and_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("nanochat.metrics.time.monotonic", lambda: clock[0])
    with Progress(100, "base", interval_s=10) as progress:
        for step in range(1, 101):
            progress.update(step, loss=2.0, tokens_per_s=12_345.6)
            clock[0] += 1.0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[1] == "base  11 %  step 11/100  loss 2.0000  12,346 tok/s  1 min 29 s left"
    assert lines[-1] == "base 100 %  step 100/100  loss 2.0000  12,346 tok/s"


def test_one_bad_loss_does_not_spoil_the_average(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(10, "sft", enabled=False)
    progress.update(1, loss=3.0)
    progress.update(2, loss=float("inf"))
    assert progress.loss.value == pytest.approx(3.0)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar() -> None:
    import pty

    program = (
        "from nanochat.metrics import Progress\n"
        "with Progress(3, 'base') as p:\n"
        "    for step in (1, 2, 3): p.update(step, loss=1.5)\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(sys.executable, [sys.executable, "-c", program])
    shown = b""
    while chunk := _read(terminal):
        shown += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "step 3/3" in shown.decode() and "━" in shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so that the other side has closed
        return b""
