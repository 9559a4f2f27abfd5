"""Metrics for wandb: what is handed over, by the real client, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanochat import track
from nanochat.common import UsageError, write_json
from nanochat.metrics import MetricsLog


def stage(base: Path) -> Path:
    folder = base / "base_exp1"
    write_json(folder / "config.json", {"depth": 2})
    log = MetricsLog(folder / "metrics.jsonl")
    log.log(1, loss=3.5)
    log.log(2, loss=3.25, tokens_per_s=1000.0)
    log.log(2, val_bpb=1.5, grad=float("nan"))
    return folder


def test_what_belongs_to_a_step_is_sent_together(base: Path) -> None:
    found = dict(track.history(stage(base) / "metrics.jsonl"))
    assert found[1]["loss"] == 3.5 and list(found) == [1, 2]
    assert (found[2]["loss"], found[2]["val_bpb"]) == (3.25, 1.5) and "grad" not in found[2]


def test_a_run_without_metrics_is_named(base: Path) -> None:
    with pytest.raises(UsageError, match=r"'nope' .* has no metrics yet"):
        track.send(base, "nope", "p")


@pytest.mark.slow
def test_wandb_keeps_it_for_later(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra `track` is not installed")
    stage(base)
    monkeypatch.setenv("WANDB_API_KEY", "")
    (folder,) = track.send(base, "exp1", "p")
    (again,) = track.send(base, "exp1", "p")
    # offline-run-TIME-ID, and -1 behind it if both were in one second
    assert folder.parent == base / "wandb" and folder.name.split("-")[3] == again.name.split("-")[3]
    (file,) = folder.glob("run-*.wandb")
    assert all(word in file.read_bytes() for word in (b"val_bpb", b"3.25", b"1.5", b"depth"))
