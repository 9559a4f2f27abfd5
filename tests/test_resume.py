"""Runs that are stopped and killed in new processes end with the same bits as one that was left alone.

The points are drawn from a printed seed; NANOCHAT_TEST_SEED repeats them. The short form kills saves at the
points of the protocol and at two other filesystem events, NANOCHAT_LONG=1 at each, and adds random kills.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import toy

from nanochat import checkpoint_manager, metrics
from nanochat.common import EXIT_DONE, EXIT_STOPPED, read_json

pytestmark = pytest.mark.slow
STAGES = ("base", "mid", "sft")
STEPS, SAVE_EVERY = 20, 4
SEED = int(os.environ.get("NANOCHAT_TEST_SEED") or random.randrange(2**32))
RANKS = [1, pytest.param(2, marks=pytest.mark.dist)]
Straight = Callable[[int, str], Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    toy.make_world(root)
    return root


@pytest.fixture(scope="module")
def straight(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """`straight(ranks, stage)`: the base folder of an undisturbed run, made when it is first asked for.

    All start from the stages that one rank trained.
    """
    folders: dict[tuple[int, str], Path] = {}

    def make(ranks: int, stage: str) -> Path:
        if (ranks, stage) not in folders:
            folder = tmp_path_factory.mktemp(f"{stage}{ranks}")
            give_sources(stage, make, folder)
            code = launch(ranks, stage, world, folder)
            assert code == EXIT_DONE, (folder / "log").read_text()
            folders[ranks, stage] = folder
        return folders[ranks, stage]

    return make


def give_sources(stage: str, straight: Straight, base: Path) -> None:
    """Copy what `stage` starts from."""
    for earlier in STAGES[: STAGES.index(stage)]:
        shutil.copytree(straight(1, earlier) / f"{earlier}_tiny", base / f"{earlier}_tiny")


def launch(ranks: int, stage: str, world: Path, base: Path, fault: str = "", *extra: str) -> int | None:
    sizes = ("--steps", str(STEPS), "--save-every-steps", str(SAVE_EVERY), "--eval-every-steps", "8")
    argv, log = toy.options(stage, world, base, *sizes, *extra), base / "log"
    if ranks == 1:
        return toy.run(stage, argv, log, fault)
    return toy.torchrun(ranks, stage, argv, log, fault).wait(600)


def epoch_ends(folder: Path, world: Path, stage: str) -> list[int]:
    """Steps in which a run comes to the end of an epoch: its rows a step over the rows an epoch has."""
    from nanochat import dataloader, dataset
    from nanochat.config import ChatSFT
    from nanochat.dataloader import DocumentSource, ItemSource
    from nanochat.stages import _split
    from nanochat.tokenizer import Tokenizer
    from tasks.catalogue import load_mixture

    tokenizer = Tokenizer.load(world / "tok")
    source: DocumentSource | ItemSource
    if stage == "base":
        source = DocumentSource(dataset.load_manifest(world / "data").split("train"), tokenizer, ChatSFT.seed)
    else:
        items = load_mixture(world, world / "data", f"{stage}.jsonl")[0]
        supervise = read_json(folder / "config.json")["supervise"]
        source = ItemSource(
            _split(items, ChatSFT.seed)[0], tokenizer, ChatSFT.seed, supervise, toy.CONTEXT + 1
        )
    epochs, steps = [0], dataloader.batches(source, rows=toy.BATCH_ROWS, context=toy.CONTEXT)
    for batch, _ in zip(steps, range(STEPS), strict=False):
        epochs.append(batch.state["epoch"])
    assert batch.state == read_json(folder / "DONE")["data"]
    return [step for step in range(1, STEPS) if epochs[step] > epochs[step - 1]]


# ----------------------------------------------------------------------------- stopped


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ranks", RANKS)
def test_stopped_three_times_is_as_if_never(
    stage: str, ranks: int, world: Path, straight: Straight, tmp_path: Path
) -> None:
    """Inside an accumulation, in the step that ends an epoch, and while a checkpoint is being saved."""
    rng = random.Random(f"{SEED} {stage} {ranks}")
    undisturbed = straight(ranks, stage) / f"{stage}_tiny"
    at = {"epoch": rng.choice(epoch_ends(undisturbed, world, stage))}
    at["save"] = rng.choice([s for s in range(SAVE_EVERY, STEPS, SAVE_EVERY) if s != at["epoch"]])
    at["accumulation"] = rng.choice([s for s in range(1, STEPS) if s not in at.values()])
    print(f"NANOCHAT_TEST_SEED={SEED}: {stage} on {ranks} rank(s) is stopped in steps {at}")
    give_sources(stage, straight, tmp_path)
    micro, done = toy.BATCH_ROWS // toy.ROWS // ranks, 0  # micro-batches of one step on a rank
    for kind, step in sorted(at.items(), key=lambda item: item[1]):
        number = (step - 1 - done) * micro + (rng.randrange(1, micro) if kind == "accumulation" else micro)
        fault = f"micro:{number}:{rng.choice(['SIGTERM', 'SIGINT', 'SIGUSR2'])}:{ranks - 1}"
        if kind == "save":
            fault = f"file{step}:{rng.randrange(1, 15)}:SIGTERM:0"
        code = launch(ranks, stage, world, tmp_path, fault)
        assert code == (EXIT_STOPPED if ranks == 1 else EXIT_DONE), (tmp_path / "log").read_text()
        done = read_json(tmp_path / f"{stage}_tiny" / "STOPPED")["step"]
        assert done == step, kind
    assert launch(ranks, stage, world, tmp_path) == EXIT_DONE
    assert (tmp_path / "log").read_text().count("resumed at step") == 3
    assert toy.outcome(tmp_path / f"{stage}_tiny") == toy.outcome(undisturbed)


# ----------------------------------------------------------------------------- killed

PROTOCOL = {
    "before the first shard": r"os.mkdir \S+/\.step_0000012",
    "behind the optimizer's shard": r"open \S+\.step_0000012\S+/optimizer",
    "behind the weights": r"open \S+\.step_0000012\S+/model",
    "before the manifest": r"open \S+\.step_0000012\S+/\.manifest",
    "behind the manifest, before the commit": r"os.rename \S+/\.step_0000012\S+ \S+/step_0000012",
    "behind the commit, before pruning": r"open \S+/checkpoints ",
    "in pruning, before the name is gone": r"os.rename \S+/step_0000004 ",
    "in pruning, half deleted": r"os.remove state.json",
}


@pytest.fixture(scope="module")
def events(world: Path, straight: Straight, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Number -> description of every filesystem event of the save of step 12 and the pruning behind it."""
    base = tmp_path_factory.mktemp("events")
    assert launch(1, "base", world, base, "file:1000000:SIGKILL:0") == EXIT_DONE
    lines = re.findall(r"file event (\d+): (.*)", (base / "log").read_text())
    found = {int(number): what for number, what in lines}
    first = min(n for n, what in found.items() if "step_0000012" in what)
    end = min(n for n, what in found.items() if "step_0000016" in what)
    return {n: what for n, what in found.items() if first <= n < end}


def check_killed(world: Path, straight: Straight, base: Path) -> None:
    """What a killed run left verifies, at most one save interval is lost, and the rerun ends the same."""
    folder = base / "base_tiny"
    newest = checkpoint_manager.newest(folder)
    logged = max((r["step"] for r in metrics.read(folder / "metrics.jsonl")), default=0)
    resumed = 0 if newest is None else int(newest.name.removeprefix("step_"))
    assert 0 <= logged - resumed <= SAVE_EVERY
    assert launch(1, "base", world, base) == EXIT_DONE
    assert toy.outcome(folder) == toy.outcome(straight(1, "base") / "base_tiny")
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("point", PROTOCOL)
def test_killed_in_a_save(
    point: str, events: dict[int, str], world: Path, straight: Straight, tmp_path: Path
) -> None:
    number = next(n for n, what in events.items() if re.match(PROTOCOL[point], what))
    assert launch(1, "base", world, tmp_path, f"file:{number}:SIGKILL:0") == -signal.SIGKILL
    check_killed(world, straight, tmp_path)


def test_killed_at_any_event_of_a_save(
    events: dict[int, str], world: Path, straight: Straight, tmp_path: Path
) -> None:
    assert len(events) > 20
    rng = random.Random(f"{SEED} event")
    for number in events if toy.LONG else rng.sample(sorted(events), 2):
        base = tmp_path / str(number)
        base.mkdir()
        assert launch(1, "base", world, base, f"file:{number}:SIGKILL:0") == -signal.SIGKILL
        check_killed(world, straight, base)


@pytest.mark.parametrize("trial", range(10 if toy.LONG else 2))
def test_killed_at_random_moments(trial: int, world: Path, straight: Straight, tmp_path: Path) -> None:
    rng = random.Random(f"{SEED} kill {trial}")
    argv = toy.options("base", world, tmp_path, "--steps", str(STEPS), "--save-every-steps", str(SAVE_EVERY),
                       "--eval-every-steps", "8")  # fmt: skip
    log = tmp_path / "base_tiny" / "metrics.jsonl"
    for _ in range(3):
        goal, pause = rng.randrange(1, STEPS), rng.uniform(0, 0.1)
        print(f"NANOCHAT_TEST_SEED={SEED}: killed {pause:.3f} s behind step {goal}")
        child = toy.start("base", argv, tmp_path / "log")
        while child.is_alive() and max((r["step"] for r in metrics.read(log)), default=0) < goal:
            time.sleep(0.005)
        time.sleep(pause)
        child.kill()
        child.join()
    check_killed(world, straight, tmp_path)


@pytest.mark.dist
def test_a_killed_rank_leaves_a_run_that_resumes(world: Path, straight: Straight, tmp_path: Path) -> None:
    """Rank 1 is killed; torchrun ends rank 0 and says 1; the rerun ends the same."""
    assert launch(2, "base", world, tmp_path, "micro:13:SIGKILL:1") == 1
    assert not (tmp_path / "base_tiny" / "STOPPED").exists()
    assert launch(2, "base", world, tmp_path) == EXIT_DONE
    assert toy.outcome(tmp_path / "base_tiny") == toy.outcome(straight(2, "base") / "base_tiny")


# ----------------------------------------------------------------------------- one rank or two


def assert_close(folder: Path, other: Path) -> None:
    """The same tokens in the same order, and losses that differ by rounding only."""
    assert read_json(folder / "DONE")["data"] == read_json(other / "DONE")["data"]
    mine, theirs = toy.losses(folder), toy.losses(other)
    assert len(mine) == STEPS and mine == pytest.approx(theirs, rel=1e-4)
    assert mine[-1] < mine[0]


@pytest.mark.dist
@pytest.mark.parametrize("stage", ["base", "sft"])
def test_two_ranks_train_like_one(stage: str, straight: Straight) -> None:
    assert_close(straight(2, stage) / f"{stage}_tiny", straight(1, stage) / f"{stage}_tiny")


@pytest.mark.dist
@pytest.mark.parametrize("stage", ["base", "sft"])
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_resumes_on_another_number_of_ranks(
    stage: str, first: int, then: int, world: Path, straight: Straight, tmp_path: Path
) -> None:
    give_sources(stage, straight, tmp_path)
    code = launch(first, stage, world, tmp_path, "", "--stop-at-step", "9")
    assert code == (EXIT_STOPPED if first == 1 else EXIT_DONE)
    assert launch(then, stage, world, tmp_path) == EXIT_DONE
    assert "resumed at step 9" in (tmp_path / "log").read_text()
    assert_close(tmp_path / f"{stage}_tiny", straight(1, stage) / f"{stage}_tiny")
