"""The RL stage in the loop, by its script: what it logs, that it resumes exactly, alone and on two ranks."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import toy

from nanochat.common import EXIT_DONE, EXIT_STOPPED, UsageError, read_json
from tasks.problems import Problems

SMALL = {
    "--steps": "6", "--save-every-steps": "2", "--eval-every-steps": "4", "--prompts-per-step": "3",
    "--num-samples": "4", "--max-tokens": "8", "--device-batch-rows": "4", "--eval-prompts": "2",
    "--lr-scale": "0.05",
}  # fmt: skip


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A toy world, and a base folder in which there is something to start from."""
    world, base = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("base")
    toy.make_world(world)
    small = ("--depth", "1", "--steps", "2", "--lr-scale", "0.25")
    main = importlib.import_module("scripts.base_train").main
    assert main(toy.options("base", world, base, *small)) == EXIT_DONE
    return world, base


def words(world: Path, base: Path, *extra: str) -> list[str]:
    flags = {**SMALL, "--source": "base", **dict(zip(extra[::2], extra[1::2], strict=True))}
    return toy.options("rl", world, base, *(word for pair in flags.items() for word in pair))


def fresh(base: Path, place: Path) -> Path:
    place.mkdir(exist_ok=True)
    shutil.copytree(base / "base_tiny", place / "base_tiny")
    return place


def test_the_stage_logs_validates_and_resumes_to_the_same_bits(
    started: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, base = started
    monkeypatch.setattr(Problems, "reward", toy.parity)
    main = importlib.import_module("scripts.chat_rl").main
    straight, stopped = (fresh(base, tmp_path / name) for name in ("straight", "stopped"))
    assert main(words(world, straight)) == EXIT_DONE
    assert main(words(world, stopped, "--stop-at-step", "3")) == EXIT_STOPPED
    assert main(words(world, stopped, "--stop-at-step", "5")) == EXIT_STOPPED
    assert main(words(world, stopped)) == EXIT_DONE
    whole, resumed = (toy.outcome(b / "rl_tiny") for b in (straight, stopped))
    assert whole == resumed
    steps = [record for record in whole["log"] if "reward" in record]
    assert len(steps) == 6 and all(0 < record["reward"] < 1 for record in steps)
    done = read_json(straight / "rl_tiny" / "DONE")
    assert done["data"]["counters"]["replies"] == 72 and {"val_error", "val_pass_4"} <= done["scores"].keys()
    state = read_json(straight / "rl_tiny" / "checkpoints" / "step_0000006" / "state.json")
    assert set(state["best"]) == {"step", "val_error"}
    assert toy.losses(straight / "rl_tiny")[0] != 0
    with pytest.raises(UsageError, match="temperature"):
        main(words(world, stopped, "--temperature", "0.5"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["micro:11:SIGKILL:0", "file4:9:SIGKILL:0", "file6:5:SIGKILL:0"])
def test_a_killed_run_ends_with_the_same_bits(fault: str, started: tuple[Path, Path], tmp_path: Path) -> None:
    world, base = started
    straight, killed = (fresh(base, tmp_path / name) for name in ("straight", "killed"))
    assert toy.run("rl", words(world, straight), straight / "log") == EXIT_DONE
    assert toy.run("rl", words(world, killed), killed / "log", fault) == -9, (killed / "log").read_text()
    assert toy.run("rl", words(world, killed), killed / "log") == EXIT_DONE
    assert toy.outcome(killed / "rl_tiny") == toy.outcome(straight / "rl_tiny")


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_write_and_learn_what_one_does(started: tuple[Path, Path], tmp_path: Path) -> None:
    """The same replies at the start and losses to rounding; killed, the same bits."""
    world, base = started
    one, two, killed = (fresh(base, tmp_path / name) for name in ("one", "two", "killed"))
    assert toy.run("rl", words(world, one), one / "log") == EXIT_DONE
    assert toy.torchrun(2, "rl", words(world, two), two / "log").wait(300) == EXIT_DONE
    first, second = (toy.outcome(b / "rl_tiny")["log"][0] for b in (one, two))
    for key in ("targets", "reward", "even_groups", "ended", "loss"):
        assert first[key] == pytest.approx(second[key], rel=1e-3, abs=1e-6), key
    assert toy.torchrun(2, "rl", words(world, killed), killed / "log", "micro:4:SIGKILL:1").wait(300) == 1
    assert toy.torchrun(2, "rl", words(world, killed), killed / "log").wait(300) == EXIT_DONE
    assert toy.outcome(killed / "rl_tiny") == toy.outcome(two / "rl_tiny")


@pytest.mark.slow
@pytest.mark.dist
def test_a_reward_that_fails_on_one_rank_ends_both(started: tuple[Path, Path], tmp_path: Path) -> None:
    world, base = started
    folder = fresh(base, tmp_path)
    fault = "reward:2::1"
    assert toy.torchrun(2, "rl", words(world, folder), folder / "log", fault).wait(120) == 1
    assert "reward of problem" in (folder / "log").read_text()
    assert "RewardError" in read_json(folder / "rl_tiny" / "FAULT")["reason"]
