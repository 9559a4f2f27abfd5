"""Checkpoints: what is saved is what is loaded, on any number of ranks; what is damaged is found out."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import toy

from nanochat import checkpoint_manager as ckpt
from nanochat.common import UsageError, read_json
from nanochat.config import GPTConfig, Training
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.optimizers import Optimizers, build
from nanochat.schedule import Schedule

CPU = torch.device("cpu")
ALONE = World(0, 0, 1, CPU)
CONFIG = GPTConfig(vocab_size=60, depth=3, width=32, heads=2, kv_heads=1, context=16, window_pattern="L")


def trainee(world: World = ALONE, seed: int = 0, optimizer: str = "muon") -> tuple[GPT, Optimizers]:
    """A small model and optimizers whose state is noise."""
    model = GPT(CONFIG).init_weights(seed)
    options = Training(optimizer=optimizer)  # type: ignore[arg-type]
    optimizers = build(model, options, world, Schedule(10), 512, 0.1)
    noise = torch.Generator().manual_seed(seed)
    for rows, _, _ in optimizers.slices().values():
        rows.copy_(torch.rand(rows.shape, generator=noise))
    return model, optimizers


def save(run: Path, step: int, seed: int = 0) -> Path:
    model, optimizers = trainee(seed=seed)
    return ckpt.save(run, step, model, optimizers, {"data": {"row": step}}, ALONE)


def same_state(one: Optimizers, other: Optimizers) -> bool:
    a, b = one.slices(), other.slices()
    return a.keys() == b.keys() and all(torch.equal(a[key][0], b[key][0]) for key in a)


# ----------------------------------------------------------------------------- round trip


def test_loads_what_was_saved(tmp_path: Path) -> None:
    model, optimizers = trainee(seed=1)
    folder = ckpt.save(tmp_path, 7, model, optimizers, {"data": {"row": 3}}, ALONE)
    assert folder == ckpt.step_folder(tmp_path, 7) and ckpt.newest(tmp_path) == folder
    other, other_optimizers = trainee(seed=2)
    ckpt.load_weights(folder, other)
    assert ckpt.load_optimizers(folder, other_optimizers) == set()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert same_state(optimizers, other_optimizers)
    state = read_json(folder / "state.json")
    assert (state["step"], state["data"]) == (7, {"row": 3}) and GPTConfig(**state["gpt_config"]) == CONFIG


def test_the_same_state_makes_the_same_bytes(tmp_path: Path) -> None:
    one, other = (read_json(save(tmp_path / name, 5) / "manifest.json") for name in "ab")
    assert one == other
    assert sorted(one["files"]) == ["model.safetensors", "optimizer_0of1.safetensors", "state.json"]


def test_everything_that_steps_change_is_saved() -> None:
    """No tensor of model or optimizers is left out: every one is a parameter, a slice, or derived."""
    model, optimizers = trainee()
    kept = {p.data_ptr() for p in model.parameters()}
    kept |= {rows.untyped_storage().data_ptr() for rows, _, _ in optimizers.slices().values()}
    assert {name for name, _ in model.named_buffers()} == {"cos", "sin"}  # functions of the config
    assert optimizers.muon is not None
    state = [t for pair in optimizers.muon.state.values() for t in pair]
    state += [t for tensors in optimizers.adamw.state.values() for t in tensors.values()]
    assert state and all(t.untyped_storage().data_ptr() in kept for t in state)


@pytest.mark.parametrize(("saved_by", "loaded_by"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_optimizer_state_moves_to_other_ranks(tmp_path: Path, saved_by: int, loaded_by: int) -> None:
    whole = {key: rows.clone() for key, (rows, _, _) in trainee(seed=3)[1].slices().items()}
    for rank in range(saved_by):
        slices = trainee(World(rank, rank, saved_by, CPU))[1].slices()
        for key, (rows, first, _) in slices.items():
            rows.copy_(whole[key][first : first + rows.size(0)])
        ckpt._write_shard(tmp_path / f"optimizer_{rank}of{saved_by}.safetensors", slices)
    seen = set()
    for rank in range(loaded_by):
        optimizers = trainee(World(rank, rank, loaded_by, CPU), seed=9)[1]
        assert ckpt.load_optimizers(tmp_path, optimizers) == set()
        for key, (rows, first, total) in optimizers.slices().items():
            assert torch.equal(rows, whole[key][first : first + rows.size(0)]) and total == whole[key].size(
                0
            ), key
            seen.add(key)
    assert seen == whole.keys()


def test_state_of_another_optimizer_is_not_made_up(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    adamw = trainee(seed=4, optimizer="adamw")[1]
    before = {key: rows.clone() for key, (rows, _, _) in adamw.slices().items()}
    missing = ckpt.load_optimizers(folder, adamw)
    assert missing and all("blocks" in key for key in missing)
    assert all(torch.equal(adamw.slices()[key][0], before[key]) for key in missing)


# ----------------------------------------------------------------------------- which one counts


def test_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    ckpt.prune(tmp_path, keep_last=2, best_step=2)
    assert ckpt.list_steps(tmp_path) == [2, 4, 5]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_names_that_only_look_like_a_checkpoint_do_not_count(tmp_path: Path) -> None:
    for name in ("step_0000009-old", "step_9", ".step_0000009.1.ab.tmp", "step_00000099", "latest"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert ckpt.list_steps(tmp_path) == [] and ckpt.newest(tmp_path) is None
    save(tmp_path, 3)
    assert ckpt.list_steps(tmp_path) == [3]
    assert not (tmp_path / "checkpoints" / ".step_0000009.1.ab.tmp").exists()  # a killed save's; swept


def test_a_copy_under_another_step_does_not_count(tmp_path: Path) -> None:
    shutil.copytree(save(tmp_path, 3), ckpt.step_folder(tmp_path, 8))
    assert ckpt.newest(tmp_path) == ckpt.step_folder(tmp_path, 3)


def test_a_damaged_one_is_replaced_by_the_rerun(tmp_path: Path) -> None:
    (save(tmp_path, 3) / "model.safetensors").write_bytes(b"")
    assert ckpt.problem(save(tmp_path, 3)) is None


@pytest.fixture(scope="module")
def two_saves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("saves")
    save(run, 2, seed=1)
    save(run, 4, seed=2)
    return run


@pytest.fixture
def damaged(two_saves: Path, tmp_path: Path) -> Iterator[Path]:
    yield shutil.copytree(two_saves, tmp_path / "run")


def test_every_flipped_bit_is_found(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    folder = ckpt.step_folder(damaged, 4)
    for path in sorted(folder.iterdir()):
        healthy = path.read_bytes()
        every = range(8 * len(healthy))
        with path.open("r+b", buffering=0) as file:
            for bit in rng.sample(every, len(every) if toy.LONG and len(every) < 50_000 else 60):
                os.pwrite(file.fileno(), bytes([healthy[bit // 8] ^ 1 << bit % 8]), bit // 8)
                assert ckpt.problem(folder), f"bit {bit} of {path.name} (seed {seed})"
                os.pwrite(file.fileno(), healthy[bit // 8 :][:1], bit // 8)
        assert ckpt.problem(folder) is None
    capsys.readouterr()


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.safetensors", "optimizer_0of1.safetensors", "state.json"]
)
def test_falls_back_to_the_older_one_and_says_so(
    damaged: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ckpt.step_folder(damaged, 4) / name
    size = path.stat().st_size
    for length in (0, 1, size // 2, size - 1):
        path.write_bytes(path.read_bytes()[:length].ljust(length, b"x"))
        assert ckpt.newest(damaged) == ckpt.step_folder(damaged, 2)
        said = capsys.readouterr().out
        assert "step_0000004 is passed over" in said and name in said
    path.unlink()
    assert ckpt.newest(damaged) == ckpt.step_folder(damaged, 2)


def test_never_starts_again_in_silence(damaged: Path) -> None:
    for step in (2, 4):
        os.truncate(ckpt.step_folder(damaged, step) / "model.safetensors", 10)
    with pytest.raises(UsageError, match=r"no checkpoint in .* verifies"):
        ckpt.newest(damaged)


def test_a_manifest_of_any_shape_is_only_damaged(damaged: Path) -> None:
    path = ckpt.step_folder(damaged, 4) / "manifest.json"
    for content in ("", "[]", "3", "null", '{"files": []}', '{"seal": 1}', '{"seal": "", "files": {"a": 1}}'):
        path.write_text(content, encoding="utf-8")
        assert "manifest.json" in (ckpt.problem(path.parent) or "")
    facts = json.loads((ckpt.step_folder(damaged, 2) / "manifest.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, "step": 4}), encoding="utf-8")
    assert "manifest.json" in (ckpt.problem(path.parent) or "")


# ----------------------------------------------------------------------------- what must not be saved


@pytest.mark.parametrize("place", ["weights", "optimizer"])
def test_what_is_not_finite_is_not_committed(tmp_path: Path, place: str) -> None:
    save(tmp_path, 1)
    model, optimizers = trainee()
    tensor = (
        model.embed.weight.data if place == "weights" else optimizers.slices()["embed.weight.exp_avg_sq"][0]
    )
    tensor[3, 4] = float("inf")
    with pytest.raises(FloatingPointError, match=r"step 2: .*embed\.weight"):
        ckpt.save(tmp_path, 2, model, optimizers, {}, ALONE)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_0000001"]


def test_a_model_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    changes = {"depth": 2, "vocab_size": 99, "width": 48, "arch": "classic"}
    for name, value in changes.items():
        other = GPT(GPTConfig(**{**vars(CONFIG), name: value})).init_weights(0)
        with pytest.raises(UsageError, match=r"holds another architecture|the model's is"):
            ckpt.load_weights(folder, other)
