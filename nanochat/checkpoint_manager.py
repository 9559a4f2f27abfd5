"""Checkpoints: safetensors and JSON in a folder whose rename is the commit.

What it is: save, find, verify, load, prune. A checkpoint is `checkpoints/step_0000500/` with
`model.safetensors` (float32 weights), `optimizer_RofW.safetensors` (each rank's share, with the rows
it holds), `state.json` (step, loader position, architecture, scores) and `manifest.json` (sizes and
SHA-256 of the others, under a seal). It is filled under a temporary name, fsynced, hashed, then renamed:
there is no pointer to a latest one, the newest folder that verifies is it. Optimizer state is stored by
row ranges, so any number of ranks can load it. What it is not: pickles of any kind, or a choice of what
to save (`trainer.py`). Run: `pytest tests/test_checkpoint_manager.py`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanochat.common import UsageError, print0, read_json, resolve, sha256_file, write_json
from nanochat.config import GPTConfig
from nanochat.configurator import from_dict
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.optimizers import Optimizers
from nanochat.tokenizer import Tokenizer

STEP_FOLDER = re.compile(r"step_(\d{7})")
HEADROOM = 1.2  # free space asked for, as a multiple of what the newest checkpoint takes


def step_folder(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step_{step:07d}"


def list_steps(run_dir: Path) -> list[int]:
    """Committed steps, ascending. A folder's full name must match, so leftovers never count."""
    folder = run_dir / "checkpoints"
    names = (STEP_FOLDER.fullmatch(p.name) for p in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(match[1]) for match in names if match)


# ----------------------------------------------------------------------------- saving


def save(
    run_dir: Path, step: int, model: GPT, optimizers: Optimizers, state: dict[str, Any], world: World
) -> Path:
    """Commit the state after `step` updates; every rank calls it. Returns the folder.

    What is not finite raises a FloatingPointError, what cannot be written an OSError: on every rank, and
    nothing is committed.
    """
    weights = {name: p.detach() for name, p in model.named_parameters()}
    slices = optimizers.slices()
    _refuse_nonfinite({**weights, **{key: rows for key, (rows, _, _) in slices.items()}}, step, world)
    final = step_folder(run_dir, step)
    temp = Path(world.share(str(final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"))))
    with _together(world, temp):
        if world.is_main:
            _sweep(run_dir)
            temp.mkdir(parents=True)
    with _together(world, temp):
        _write_shard(temp / f"optimizer_{world.rank}of{world.size}.safetensors", slices)
        if world.is_main:
            _write_tensors(temp / "model.safetensors", weights)
            write_json(temp / "state.json", {**state, "step": step, "gpt_config": vars(model.config)})
    with _together(world, temp):
        if world.is_main:
            _write_manifest(temp, step)
            _commit(temp, final)
    return final


def _refuse_nonfinite(tensors: dict[str, Tensor], step: int, world: World) -> None:
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if world.any(bool(bad)):
        names = ", ".join(bad[:3]) or "on another rank"
        raise FloatingPointError(f"step {step}: weights or optimizer state are not finite ({names})")


@contextlib.contextmanager
def _together(world: World, temp: Path) -> Iterator[None]:
    """What one rank cannot write, no rank commits: they all raise, and none waits for a peer that gave up."""
    failed: OSError | None = None
    try:
        yield
    except OSError as error:
        failed = error
    if world.any(failed is not None):
        if world.is_main:
            shutil.rmtree(temp, ignore_errors=True)
        raise failed or OSError(
            errno.EIO, "another rank could not write its part of the checkpoint", str(temp)
        )


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, metadata)
    except SafetensorError as error:  # says "(os error 28)" in words only
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _write_shard(path: Path, slices: dict[str, tuple[Tensor, int, int]]) -> None:
    rows = {key: [first, total] for key, (_, first, total) in slices.items()}
    _write_tensors(path, {key: tensor for key, (tensor, _, _) in slices.items()}, {"rows": json.dumps(rows)})


def _write_manifest(folder: Path, step: int) -> None:
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(folder.iterdir())}
    facts = {"step": step, "files": files}
    write_json(folder / "manifest.json", {**facts, "seal": _seal(facts)})


def _seal(facts: dict[str, Any]) -> str:
    """A manifest's hash of itself: a flipped bit in it may not hide a file."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _commit(temp: Path, final: Path) -> None:
    if final.exists():  # it did not verify, else the run would have gone on from it
        final.rename(final.with_name(f".{final.name}.{secrets.token_hex(4)}.bad"))
    temp.rename(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(run_dir: Path) -> None:
    """Remove what killed saves left behind. One run folder has one trainer, so no one else's is here."""
    for path in (run_dir / "checkpoints").glob(".step_*"):
        shutil.rmtree(path, ignore_errors=True)


def prune(run_dir: Path, keep_last: int, best_step: int | None) -> None:
    """Delete all but the newest `keep_last` and the best; un-commits (renames) before it unlinks."""
    for step in list_steps(run_dir)[: -max(1, keep_last)]:
        if step != best_step:
            folder = step_folder(run_dir, step)
            trash = folder.with_name(f".{folder.name}.trash")
            folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)


def check_space(run_dir: Path, model: GPT) -> None:
    """Refuse to start a run whose first checkpoint cannot fit: weights and two moments, in float32."""
    need = int(HEADROOM * 3 * 4 * sum(p.numel() for p in model.parameters()))
    free = shutil.disk_usage(run_dir).free
    if free < need:
        raise UsageError(
            f"{run_dir} has {free >> 20} MiB free; a checkpoint needs {need >> 20} MiB. Free some space"
        )


# ----------------------------------------------------------------------------- loading


def problem(folder: Path) -> str | None:
    """Why a checkpoint does not verify, or None if it does. Reads every byte."""
    try:
        manifest = read_json(folder / "manifest.json")
        seal = manifest.pop("seal")
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return f"manifest.json cannot be read ({error!r})"
    if seal != _seal(manifest) or folder != step_folder(folder.parent.parent, manifest["step"]):
        return "manifest.json was changed, or belongs to another step"
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != facts["bytes"] or sha256_file(path) != facts["sha256"]:
            return f"{name} does not match its SHA-256"
    return None


def newest(run_dir: Path) -> Path | None:
    """The newest checkpoint that verifies; says aloud which ones were passed over, and why.

    Raises if there are checkpoints and none verifies: starting again in silence would lose them.
    """
    steps = list_steps(run_dir)
    for step in reversed(steps):
        why = problem(step_folder(run_dir, step))
        if why is None:
            return step_folder(run_dir, step)
        print0(f"checkpoint {step_folder(run_dir, step)} is passed over: {why}")
    if steps:
        raise UsageError(
            f"no checkpoint in {run_dir / 'checkpoints'} verifies; restore one, or start again with --fresh"
        )
    return None


def load_weights(folder: Path, model: GPT) -> None:
    """Copy `model.safetensors` into a model of the same architecture."""
    with safe_open(folder / "model.safetensors", framework="pt") as file, torch.no_grad():
        parameters = dict(model.named_parameters())
        if set(file.keys()) != set(parameters):
            odd = sorted(set(file.keys()) ^ set(parameters))
            raise UsageError(
                f"{folder} holds another architecture; parameters that differ: {', '.join(odd[:4])}"
            )
        for name, parameter in parameters.items():
            saved = file.get_tensor(name)
            if saved.shape != parameter.shape:
                raise UsageError(
                    f"{folder}: {name} is {tuple(saved.shape)}, the model's is {tuple(parameter.shape)}"
                )
            parameter.copy_(saved)


def load_optimizers(folder: Path, optimizers: Optimizers) -> set[str]:
    """Fill this rank's state from the shards of however many ranks saved them.

    Returns the keys that the checkpoint does not have (another optimizer saved it); they stay as they are.
    """
    wanted = optimizers.slices()
    whole: dict[str, Tensor] = {}
    for path in sorted(folder.glob("optimizer_*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key, (first, total) in json.loads(file.metadata()["rows"]).items():
                if key in wanted:
                    rows = file.get_tensor(key)
                    tensor = whole.setdefault(key, torch.empty((total, *rows.shape[1:]), dtype=rows.dtype))
                    tensor[first : first + rows.size(0)] = rows
    optimizers.load_slices(whole)
    return wanted.keys() - whole.keys()


def load_model(
    base: Path, source: str, run: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """The newest model of a stage (`base`, `mid`, `sft`, ...) of a run, its tokenizer, and its state.

    Returns the model on `device` in evaluation mode, with products in `dtype`.
    """
    run_dir = base / f"{source}_{run}"
    folder = newest(run_dir)
    if folder is None:
        there = ", ".join(sorted(p.name for p in base.glob("*_*") if list_steps(p))) or "none"
        raise UsageError(f"no checkpoint in {run_dir}; runs that have one: {there}")
    state = read_json(folder / "state.json")
    tokenizer = Tokenizer.load(resolve(base, state["tok_dir"]))
    if tokenizer.hash != state["identity"]["tokenizer"]:
        raise UsageError(
            f"{state['tok_dir']} holds another tokenizer than the one {run_dir} was trained with"
        )
    model = GPT(from_dict(GPTConfig, state["gpt_config"]), dtype).to(device)
    model.init_weights(0)
    load_weights(folder, model)
    return model.eval(), tokenizer, {**state, "folder": str(folder)}
