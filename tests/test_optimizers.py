"""AdamW and Muon against slow twins, alone and over two ranks; and who moves what, at which rate."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nanochat import optimizers
from nanochat.adamw import AdamGroup, AdamW
from nanochat.config import BaseTrain, GPTConfig
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.muon import Muon, orthogonalise
from nanochat.optimizers import Optimizers
from nanochat.schedule import Schedule

ALONE = World(0, 0, 1, torch.device("cpu"))
STEPS = 4
# Matrices of one shape are stacked: three, one and two of them for two ranks.
MATRICES = {"a": (24, 8), "b": (24, 8), "c": (24, 8), "d": (8, 24), "e": (16, 16), "f": (16, 16)}
# Shared by rows; an odd number of rows and few elements, which stay whole.
TABLES = {"even": (64, 20), "odd": (65, 20), "small": (10, 4), "scalar": (3,)}


def draw(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(value) for name, value in draw(shapes, seed=0).items()}


def gradients(shapes: dict[str, tuple[int, ...]], step: int, rank: int, size: int) -> dict[str, Tensor]:
    """This rank's part of a gradient whose sum over ranks does not depend on their number."""
    whole, part = draw(shapes, seed=100 + step), draw(shapes, seed=200 + step)
    if size == 1:
        return whole
    return {name: part[name] if rank else whole[name] - part[name] for name in shapes}


# ----------------------------------------------------------------------------- AdamW


def test_adamw_equals_the_book() -> None:
    """Two groups, rates that change, and a weight decay."""
    params = parameters(TABLES)
    hyper = {"even": (0.1, (0.8, 0.995), 0.01), "small": (0.02, (0.96, 0.95), 0.0)}
    groups = [AdamGroup({name: params[name]}, *values) for name, values in hyper.items()]
    tuned = AdamW(groups, ALONE)
    multipliers = [0.5, 1.0, 0.7, 0.1, 0.0]
    grads = [gradients(TABLES, step, 0, 1) for step in range(len(multipliers))]
    for multiplier, grad in zip(multipliers, grads, strict=True):
        for name in hyper:
            params[name].grad = grad[name].clone()
        tuned.step(multiplier)
    for name, (lr, betas, decay) in hyper.items():
        rates = [lr * multiplier for multiplier in multipliers]
        start = draw(TABLES, seed=0)[name]
        want = reference.adamw(start, [grad[name] for grad in grads], rates, betas, decay, tuned.eps)
        torch.testing.assert_close(params[name].double(), want, rtol=1e-5, atol=1e-6)


def test_adamw_leaves_what_has_no_gradient() -> None:
    params = parameters(TABLES)
    tuned = AdamW([AdamGroup(params, 0.1, weight_decay=0.1), AdamGroup({}, 0.1)], ALONE)
    params["odd"].grad = torch.ones(TABLES["odd"])
    tuned.step(1.0)
    before = draw(TABLES, seed=0)
    assert [name for name in TABLES if not torch.equal(params[name], before[name])] == ["odd"]


# ----------------------------------------------------------------------------- Muon


def train_muon(
    muon: Muon, params: dict[str, nn.Parameter], world: World, steps: range, momentum: float
) -> None:
    for step in steps:
        for name, grad in gradients(MATRICES, step, world.rank, world.size).items():
            params[name].grad = grad
        muon.step(1.0, momentum, decay=1.0)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_muon_equals_the_twin(decay: float) -> None:
    """Tall, wide and square matrices, several of one shape in a stack."""
    params = parameters(MATRICES)
    train_muon(Muon(params, ALONE, 0.1, decay), params, ALONE, range(STEPS), 0.9)
    grads = [gradients(MATRICES, step, 0, 1) for step in range(STEPS)]
    for name, start in draw(MATRICES, seed=0).items():
        want = reference.muon(start, [grad[name] for grad in grads], 0.1, 0.9, decay)
        torch.testing.assert_close(params[name].double(), want, rtol=1e-4, atol=1e-4)


def test_muon_scales_rate_and_decay() -> None:
    """Half the multiplier is half the step; the decay curve scales the weight decay, down to none."""
    moved = {}
    for multiplier, decay in [(1.0, 0.0), (0.5, 0.0), (1.0, 1.0)]:
        params = parameters(MATRICES)
        for name, grad in gradients(MATRICES, 0, 0, 1).items():
            params[name].grad = grad
        Muon(params, ALONE, 0.1, 0.3).step(multiplier, 0.9, decay)
        moved[multiplier, decay] = params["a"].detach() - draw(MATRICES, seed=0)["a"]
    torch.testing.assert_close(moved[1.0, 0.0], 2 * moved[0.5, 0.0], rtol=1e-4, atol=1e-6)
    assert not torch.equal(moved[1.0, 1.0], moved[1.0, 0.0])


def test_muon_without_a_gradient_moves_nothing() -> None:
    params = parameters(MATRICES)
    muon = Muon(params, ALONE, 0.1)
    params["a"].grad = torch.zeros(MATRICES["a"])  # the others have none at all
    muon.step(1.0, 0.9, 1.0)
    for name, before in draw(MATRICES, seed=0).items():
        assert torch.equal(params[name], before), name


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 128, 32), (2, 32, 128)], ids=str)
def test_orthogonalise_flattens_singular_values(shape: tuple[int, ...]) -> None:
    """Near 1 for those within a factor of 100 of the largest, never beyond; directions are kept."""
    rng = torch.Generator().manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=rng), full_matrices=False)
    values = torch.logspace(0, -2, min(shape[1:]))
    got = orthogonalise(u * values @ vt)
    singular = torch.linalg.svdvals(got)
    assert singular.min() > 0.7 and singular.max() < 1.2, (singular.min(), singular.max())
    torch.testing.assert_close(orthogonalise(u * values @ vt * 1e3), got, rtol=1e-3, atol=1e-3)
    for x, y in zip(u * values @ vt, got, strict=True):
        want = reference.polar_express(x.double())
        torch.testing.assert_close(y.double(), want, rtol=0, atol=1e-3)


# ----------------------------------------------------------------------------- who moves what


def small(**options: Any) -> GPT:
    shape = {"vocab_size": 300, "depth": 4, "width": 64, "heads": 4, "kv_heads": 4, "context": 32}
    return GPT(GPTConfig(**{**shape, **options})).init_weights(0)


def rates(tuned: Optimizers) -> dict[str, tuple[float, tuple[float, float], float]]:
    """Parameter -> (learning rate, betas, weight decay) of AdamW."""
    return {
        name: (group.lr, group.betas, group.weight_decay)
        for group in tuned.adamw.groups
        for name in group.parameters
    }


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(
    "options",
    [{}, {"arch": "classic"}, {"tie_embeddings": True}, {"activation": "swiglu", "kv_heads": 1}],
    ids=str,
)
def test_each_parameter_is_moved_once(options: dict[str, Any], optimizer: str) -> None:
    model = small(**options)
    config = BaseTrain(optimizer=optimizer)  # type: ignore[arg-type]
    tuned = optimizers.build(model, config, ALONE, Schedule(10), 2**19, 0.1)
    by_adam = [name for group in tuned.adamw.groups for name in group.parameters]
    by_muon = [name for stack in tuned.muon.stacks.values() for name in stack] if tuned.muon else []
    assert sorted(by_adam + by_muon) == sorted(name for name, _ in model.named_parameters())
    matrices = {"q", "k", "v", "o", "up", "down"} | (
        {"gate"} if options.get("activation") == "swiglu" else set()
    )
    assert {name.split(".")[3] for name in by_muon} == (matrices if optimizer == "muon" else set())


@pytest.mark.parametrize(("width", "log_batch"), [(768, 19), (192, 17), (1280, 20)])
def test_rates_are_the_recipes(width: int, log_batch: int) -> None:
    """The table of July 2026; s follows the width, b the batch."""
    s, b = math.sqrt(768 / width), math.sqrt(2**log_batch / 2**19)
    with torch.device("meta"):
        model = GPT(GPTConfig(vocab_size=64, depth=2, width=width, heads=4, kv_heads=4))
    tuned = optimizers.build(model, BaseTrain(), ALONE, Schedule(10), 2**log_batch, 0.28)
    table = {
        "lm_head.weight": (0.008 * s * b, (0.8, 0.96), 0.01),
        "embed.weight": (0.3 * s * b, (0.8, 0.995), 0.001),
        "value_embeds.1.weight": (0.15 * s * b, (0.8, 0.995), 0.01),
        "residual_lambdas": (0.005 * b, (0.8, 0.95), 0.05),
        "input_lambdas": (0.5 * b, (0.96, 0.95), 0.0),
        "smear_lambda": (0.2, (0.8, 0.95), 0.0),
        "smear_gate.weight": (0.2, (0.8, 0.95), 0.0),
        "backout_lambda": (0.2, (0.8, 0.95), 0.0),
    }
    for name, (lr, betas, decay) in table.items():
        assert rates(tuned)[name] == (pytest.approx(lr), betas, decay), name
    assert tuned.adamw.eps == 1e-10
    assert tuned.muon is not None
    assert (tuned.muon.lr, tuned.muon.weight_decay) == (pytest.approx(0.02 * b), 0.28)


def test_options_scale_the_rates() -> None:
    model = small()
    plain, scaled = (
        rates(optimizers.build(model, BaseTrain(lr_scale=scale), ALONE, Schedule(10), 2**19, 0.0))
        for scale in (1.0, 0.5)
    )
    assert all(scaled[name][0] == pytest.approx(plain[name][0] / 2) for name in plain)


def test_rounding_does_not_steer_the_run() -> None:
    """The same batches summed in two ways differ by rounding errors, and so do the losses: no more."""
    results = []
    for parts in (1, 4):
        model = small(depth=4)
        tuned = optimizers.build(model, BaseTrain(), ALONE, Schedule(12, warmup=2), 2**10, 0.28)
        losses = []
        for step in range(12):
            ids = torch.randint(300, (4, 33), generator=torch.Generator().manual_seed(step))
            loss = torch.zeros(())
            for rows in ids.chunk(parts):
                part = model.loss_sum(rows[:, :-1], rows[:, 1:]) / (4 * 32)
                part.backward()
                loss += part.detach()
            losses.append(loss.item())
            tuned.step(step)
            model.zero_grad(set_to_none=True)
        results.append(losses)
    assert results[0] == pytest.approx(results[1], rel=1e-5)


# ----------------------------------------------------------------------------- state


def whole_state(tuned: Optimizers) -> dict[str, Tensor]:
    """A copy of the state of a single rank, as a checkpoint would hold it."""
    return {key: tensor.clone() for key, (tensor, _, _) in tuned.slices().items()}


def make_pair(world: World) -> tuple[dict[str, nn.Parameter], Optimizers]:
    """Fresh parameters and both optimizers over them."""
    params = parameters({**MATRICES, **TABLES})
    muon = Muon({name: params[name] for name in MATRICES}, world, 0.1, 0.1)
    adamw = AdamW([AdamGroup({name: params[name] for name in TABLES}, 0.1, weight_decay=0.01)], world)
    return params, Optimizers(muon, adamw, Schedule(100, warmup=2))


def train_pair(params: dict[str, nn.Parameter], tuned: Optimizers, world: World, steps: range) -> None:
    for step in steps:
        for name, grad in gradients({**MATRICES, **TABLES}, step, world.rank, world.size).items():
            params[name].grad = grad
        tuned.step(step)


def copy_weights(params: dict[str, nn.Parameter], saved: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(saved[name])


def test_loaded_state_continues_the_run_bit_for_bit() -> None:
    params, tuned = make_pair(ALONE)
    train_pair(params, tuned, ALONE, range(STEPS))
    weights = {name: p.detach().clone() for name, p in params.items()}
    again, loaded = make_pair(ALONE)
    copy_weights(again, weights)
    loaded.load_slices(whole_state(tuned))
    for pair in ((params, tuned), (again, loaded)):
        train_pair(*pair, ALONE, range(STEPS, 2 * STEPS))
    for name, p in params.items():
        assert torch.equal(p, again[name]), name
    assert all(torch.equal(x, whole_state(loaded)[key]) for key, x in whole_state(tuned).items())


def test_slices_cover_every_tensor_once() -> None:
    """Two ranks' shares of each key are disjoint or, where small, the same; together they are whole."""
    shares = [make_pair(World(rank, rank, 2, torch.device("cpu")))[1].slices() for rank in (0, 1)]
    _, tuned = make_pair(ALONE)
    whole = tuned.slices()
    assert whole.keys() == shares[0].keys() | shares[1].keys()
    for key, (tensor, first, total) in whole.items():
        assert first == 0 and total == tensor.size(0)
        rows = [
            list(range(share[key][1], share[key][1] + share[key][0].size(0)))
            for share in shares
            if key in share
        ]
        if len(rows) == 2 and rows[0] == rows[1]:
            assert rows[0] == list(range(total))
        else:
            assert list(itertools.chain(*rows)) == list(range(total)), key


# ----------------------------------------------------------------------------- two ranks


def rank_main(rank: int, folder: str) -> None:
    """One of two ranks: go on from what one process left, then leave weights and this rank's state."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    world = World(rank, rank, 2, torch.device("cpu"))
    check_collectives(world)
    params, tuned = make_pair(world)
    copy_weights(params, load_file(f"{folder}/weights.safetensors"))
    tuned.load_slices(load_file(f"{folder}/state.safetensors"))
    train_pair(params, tuned, world, range(STEPS, 2 * STEPS))
    save_file({name: p.detach() for name, p in params.items()}, f"{folder}/weights_{rank}.safetensors")
    slices = {f"{first}:{key}": tensor.contiguous() for key, (tensor, first, _) in tuned.slices().items()}
    save_file(slices, f"{folder}/state_{rank}.safetensors")
    dist.destroy_process_group()


def check_collectives(world: World) -> None:
    assert world.sum(torch.tensor([1.0 + world.rank])).tolist() == [3.0]
    assert world.any(world.rank == 1) and not world.any(False)
    assert world.share({"from": world.rank}) == {"from": 0}
    rows = torch.arange(8.0).view(4, 2)
    assert torch.equal(world.scatter_sum(rows.clone()), 2 * rows[2 * world.rank :][:2])
    out = torch.empty(4, 2)
    world.gather(rows[2 * world.rank :][:2], out)
    assert torch.equal(out, rows)


@pytest.mark.dist
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    """One process, then two, then one again, against one process all the way."""
    params, tuned = make_pair(ALONE)
    train_pair(params, tuned, ALONE, range(STEPS))
    save_file({name: p.detach() for name, p in params.items()}, tmp_path / "weights.safetensors")
    save_file(whole_state(tuned), tmp_path / "state.safetensors")
    torch.multiprocessing.spawn(rank_main, (str(tmp_path),), nprocs=2)

    train_pair(params, tuned, ALONE, range(STEPS, 2 * STEPS))
    weights = [load_file(tmp_path / f"weights_{rank}.safetensors") for rank in (0, 1)]
    for name, p in params.items():
        assert torch.equal(weights[0][name], weights[1][name]), name
        torch.testing.assert_close(weights[0][name], p.detach(), rtol=1e-6, atol=1e-6)

    merged: dict[str, Tensor] = {key: torch.empty_like(tensor) for key, tensor in whole_state(tuned).items()}
    for rank in (0, 1):
        for label, rows in load_file(tmp_path / f"state_{rank}.safetensors").items():
            first, key = label.split(":", 1)
            merged[key][int(first) : int(first) + rows.size(0)] = rows
    again, loaded = make_pair(ALONE)
    copy_weights(again, weights[0])
    loaded.load_slices(merged)
    for pair in ((params, tuned), (again, loaded)):
        train_pair(*pair, ALONE, range(2 * STEPS, 3 * STEPS))
    for name, p in params.items():
        torch.testing.assert_close(again[name].detach(), p.detach(), rtol=1e-6, atol=1e-6)
