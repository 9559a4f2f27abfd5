"""The loop, in this process: what it logs, when it saves, that it resumes exactly, and what it refuses."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import toy

from nanochat import checkpoint_manager, metrics
from nanochat.common import EXIT_DONE, EXIT_STOPPED, UsageError, read_json
from nanochat.gpt import GPT
from nanochat.trainer import NotFinite

SMALL = ("--depth", "1", "--device-batch-rows", "4", "--steps", "6", "--save-every-steps", "2")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    toy.make_world(root)
    return root


def train(stage: str, world: Path, base: Path, *extra: str) -> int:
    script = importlib.import_module(f"scripts.{toy.SCRIPTS[stage]}")
    small = SMALL if stage == "base" else SMALL[2:]
    flags = {
        **dict(zip(small[::2], small[1::2], strict=True)),
        **dict(zip(extra[::2], extra[1::2], strict=True)),
    }
    return script.main(toy.options(stage, world, base, *(word for pair in flags.items() for word in pair)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def straight(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base folder of an undisturbed run."""
    base = tmp_path_factory.mktemp("straight")
    assert train("base", world, base) == EXIT_DONE
    return base


def records(base: Path, key: str) -> list[int]:
    return [r["step"] for r in metrics.read(base / "base_tiny" / "metrics.jsonl") if key in r]


# ----------------------------------------------------------------------------- the way it goes


def test_logs_each_step_once_and_validates_and_samples_at_the_end(straight: Path) -> None:
    assert records(straight, "loss") == [1, 2, 3, 4, 5, 6]
    assert records(straight, "val_bpb") == records(straight, "samples") == [6]
    losses = toy.losses(straight / "base_tiny")
    assert losses[-1] < losses[0] < 6
    log = metrics.read(straight / "base_tiny" / "metrics.jsonl")
    tokens, targets = max(r.get("tokens", 0) for r in log), sum(r.get("targets", 0) for r in log)
    assert tokens == 6 * 8 * 32 and 0.8 * tokens < targets <= tokens  # the rest is padding


def test_keeps_the_last_two_checkpoints_and_says_done(straight: Path) -> None:
    folder = straight / "base_tiny"
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["step_0000004", "step_0000006"]
    done = read_json(folder / "DONE")
    assert done["step"] == done["steps"] == 6 and done["data"]["counters"]["rows"] == 48
    state = read_json(folder / "checkpoints" / "step_0000006" / "state.json")
    assert state["best"] == {"step": 6, "val_bpb": done["scores"]["val_bpb"]}


def test_evaluates_samples_and_saves_when_due(world: Path, base: Path) -> None:
    every = ("--eval-every-steps", "2", "--sample-every-steps", "4", "--save-every-steps", "0")
    assert train("base", world, base, *every, "--steps", "5", "--eval-tokens", "64") == EXIT_DONE
    assert (records(base, "val_bpb"), records(base, "samples")) == ([2, 4, 5], [4, 5])
    assert [p.name for p in (base / "base_tiny" / "checkpoints").iterdir()] == ["step_0000005"]


def test_a_finished_run_does_nothing(world: Path, straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = toy.outcome(straight / "base_tiny")
    assert train("base", world, straight) == EXIT_DONE
    assert "is finished" in capsys.readouterr().out and toy.outcome(straight / "base_tiny") == before


# ----------------------------------------------------------------------------- stop and resume


def test_resumes_to_the_same_bits(
    world: Path, base: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a time limit, a signal inside an accumulation and an option; killed after the last save."""
    folder = base / "base_tiny"
    assert train("base", world, base, "--max-minutes", "0") == EXIT_STOPPED
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step_0000000"]
    monkeypatch.setattr(GPT, "loss_sum", GPT.loss_sum)  # put back what `arm` replaces
    toy.arm("micro:5:SIGTERM:0")
    assert train("base", world, base) == EXIT_STOPPED
    assert read_json(folder / "STOPPED")["step"] == 3
    assert train("base", world, base, "--stop-at-step", "4") == EXIT_STOPPED
    assert train("base", world, base) == EXIT_DONE
    (folder / "DONE").unlink()
    assert train("base", world, base) == EXIT_DONE
    assert toy.outcome(folder) == toy.outcome(straight / "base_tiny")


def test_other_rows_a_device_see_the_same_tokens(world: Path, base: Path, straight: Path) -> None:
    assert train("base", world, base, "--stop-at-step", "3") == EXIT_STOPPED
    assert train("base", world, base, "--device-batch-rows", "8") == EXIT_DONE
    mine, theirs = (read_json(b / "base_tiny" / "DONE")["data"] for b in (base, straight))
    assert mine == theirs
    assert toy.losses(base / "base_tiny") == pytest.approx(toy.losses(straight / "base_tiny"), rel=1e-4)


@pytest.mark.parametrize("what", ["loss", "gradient", "weights"])
def test_a_nan_stops_the_run_and_the_last_checkpoint_stays(
    world: Path, base: Path, straight: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights break in step 4, which is saved, the others in step 5. A rerun resumes what is kept."""
    monkeypatch.setattr(GPT, "loss_sum", GPT.loss_sum)
    step, folder = (4 if what == "weights" else 5), base / "base_tiny"
    toy.arm(f"nan:{2 * step - 1}:{what}:0")
    with pytest.raises(NotFinite, match=rf"step {step}: .*{what}.* epoch \d, window \d+, row \d+"):
        train("base", world, base)
    assert checkpoint_manager.list_steps(folder) == ([2] if what == "weights" else [2, 4])
    assert "not finite" in read_json(folder / "FAULT")["reason"]
    if what == "loss":
        assert train("base", world, base) == EXIT_DONE
        assert not (folder / "FAULT").exists() and toy.outcome(folder) == toy.outcome(straight / "base_tiny")


# ----------------------------------------------------------------------------- what it refuses


def test_other_data_under_the_same_run_is_refused(world: Path, base: Path, tmp_path: Path) -> None:
    assert train("base", world, base, "--stop-at-step", "1") == EXIT_STOPPED
    other = tmp_path / "other"
    shutil.copytree(world / "data", other)
    shutil.copy(other / "shard_00000.parquet", other / "shard_00001.parquet")
    (other / "manifest.json").unlink()
    with pytest.raises(UsageError, match="was trained with another data"):
        train("base", world, base, "--data-dir", str(other))


def test_a_stage_continues_the_one_before(world: Path, straight: Path, base: Path) -> None:
    shutil.copytree(straight / "base_tiny", base / "base_tiny")
    assert train("mid", world, base, "--steps", "2") == EXIT_DONE
    assert train("sft", world, base, "--steps", "2") == EXIT_DONE
    log = metrics.read(base / "sft_tiny" / "metrics.jsonl")
    assert toy.losses(base / "mid_tiny")[0] < toy.losses(straight / "base_tiny")[0]
    assert 0 < log[0]["targets"] < 0.6 * 8 * 32  # only what the assistant says
    with pytest.raises(UsageError, match="starts from mid, which has no checkpoint"):
        train("sft", world, base, "--run", "other")
