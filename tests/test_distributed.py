"""Ranks: what they say to each other, and how they stop, fail and end under the real torchrun.

Run as a program under torchrun, this file is one rank of the test of the collectives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

from nanochat import metrics
from nanochat.checkpoint_manager import list_steps
from nanochat.common import EXIT_DONE, EXIT_FAULT, launched, read_json
from nanochat.distributed import World, close, init, pick_device

RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NTASKS",
    "MASTER_ADDR",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    toy.make_world(root)
    return root


# ----------------------------------------------------------------------------- one process


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 0, 1)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, (5, 1, 8)),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "MASTER_ADDR": "n1"}, (3, 1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 0, 1)),  # a batch script, not srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "MASTER_ADDR": "n1"}, (0, 0, 1)),
    ],
)
def test_who_am_i(
    variables: dict[str, str], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == expected


def test_alone_every_collective_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    world, x = init("cpu"), torch.arange(4.0)
    assert (world.rank, world.size, world.is_main, world.device.type) == (0, 1, True, "cpu")
    assert torch.equal(world.sum(x.clone()), x) and world.scatter_sum(x) is x
    assert world.collect([1, "b"]) == [1, "b"]
    assert world.share({"a": 1}) == {"a": 1} and world.any(True) and not world.any(False)
    world.barrier()
    close()


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"device 'tpu' is not available here; use one of: auto, .*cpu"):
        pick_device("tpu")


# ----------------------------------------------------------------------------- several


def check_collectives(world: World) -> None:
    """Run by every rank."""
    import torch

    n, rank = world.size, world.rank
    assert world.sum(torch.tensor([1.0, float(rank)])).tolist() == [n, n * (n - 1) / 2]
    assert world.any(rank == n - 1) and not world.any(False)
    assert world.share({"from": rank} if rank == 0 else None) == {"from": 0}
    assert world.collect([rank] * rank) == [1, 2, 2]
    rows = torch.arange(2.0 * n * 3).reshape(2 * n, 3)
    mine = world.scatter_sum(rows * (rank + 1))
    assert torch.equal(mine, rows[2 * rank : 2 * rank + 2] * n * (n + 1) / 2)
    out = torch.empty(2 * n, 3)
    world.gather(rows[2 * rank : 2 * rank + 2], out)
    assert torch.equal(out, rows)
    world.barrier()


@pytest.mark.dist
def test_collectives_on_three_ranks() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", __file__]
    env = {**os.environ, "PYTHONPATH": str(toy.ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and ran.stdout.count("collectives are right") == 3, ran.stderr
    assert "FutureWarning" not in ran.stderr


@pytest.mark.dist
def test_a_stop_ends_all_ranks_with_0_and_the_marker_says_stopped(world: Path, base: Path) -> None:
    """Rank 1 is still there when rank 0 has left: with another code than 0 torchrun would kill it."""
    argv, log = toy.options("base", world, base, "--stop-at-step", "2"), base / "log"
    assert toy.torchrun(2, "base", argv, log, "late:4::1").wait(300) == EXIT_DONE
    assert read_json(base / "base_tiny" / "STOPPED")["step"] == 2
    assert "rank 1 has left" in log.read_text()
    assert not {"DONE", "FAULT"} & {p.name for p in (base / "base_tiny").iterdir()}


def wait_for_step(folder: Path, step: int, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None and not any(r["step"] >= step for r in metrics.read(folder / "metrics.jsonl")):
        time.sleep(0.02)


@pytest.mark.dist
def test_signals_to_torchrun_stop_the_run_cleanly(world: Path, base: Path) -> None:
    """SIGTERM to torchrun alone, as Slurm may send it; Ctrl-C to its process group."""
    argv, log, folder = toy.options("base", world, base, "--steps", "40"), base / "log", base / "base_tiny"
    for send, step in ((os.kill, 3), (os.killpg, 9)):
        child = toy.torchrun(2, "base", argv, log, "slow:0.05::1")
        try:
            wait_for_step(folder, step, child)
            send(child.pid, signal.SIGTERM if send is os.kill else signal.SIGINT)
            child.wait(60)
        finally:
            child.kill()
        stopped = read_json(folder / "STOPPED")["step"]
        assert step <= stopped < 40 and list_steps(folder)[-1] == stopped, log.read_text()
    assert toy.torchrun(2, "base", argv, log).wait(300) == EXIT_DONE
    steps = [r["step"] for r in metrics.read(folder / "metrics.jsonl") if "loss" in r]
    assert steps == list(range(1, 41))


@pytest.mark.dist
@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a_nan_on_one_rank_stops_all_of_them(what: str, world: Path, base: Path) -> None:
    """In step 6, which is saved, on rank 1 only."""
    argv, log = toy.options("base", world, base), base / "log"
    assert toy.torchrun(2, "base", argv, log, f"nan:12:{what}:1").wait(300) == EXIT_FAULT
    said = log.read_text()
    assert said.count("NotFinite: step 6: ") == 2 and "window" in said and "checkpoint is kept" in said, said
    assert list_steps(base / "base_tiny") == [3]
    assert "step 6" in read_json(base / "base_tiny" / "FAULT")["reason"]


@pytest.mark.dist
def test_a_usage_fault_on_rank_0_ends_all_ranks(world: Path, base: Path) -> None:
    argv = toy.options("base", world, base, "--device-batch-rows", "3")
    assert toy.torchrun(2, "base", argv, base / "log").wait(300) == EXIT_FAULT
    assert "is not a multiple of device_batch_rows 3 x context 32 x 2 rank(s)" in (base / "log").read_text()


if __name__ == "__main__":
    check_collectives(init("cpu"))
    close()
    print("collectives are right", flush=True)
