"""The stages: what differs between pretraining, mid-training, SFT and RL, as data for the one loop.

What it is: builders that turn an option dataclass into a `trainer.Stage`: where the weights come from,
which batches, how long, which schedule, how it is validated. What it is not: a loop, or the choice of data
sets (scripts hand in items: anything with `__len__` and `__getitem__`).
Run: `python -m scripts.base_train --preset tiny`, then `mid_train`, `chat_sft`, `chat_rl` likewise.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nanochat import checkpoint_manager, dataloader, dataset, evaluation, optimizers, rollout, schedule
from nanochat.common import UsageError, base_dir, print0, read_json, resolve, sha256_file
from nanochat.config import BaseTrain, Finetune, GPTConfig, Training
from nanochat.config_rl import ChatRL
from nanochat.configurator import from_dict
from nanochat.dataloader import Batch, DocumentSource, ItemSource
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.probe import pick_dtype, pick_threads
from nanochat.tokenizer import Tokenizer
from nanochat.trainer import LossSum, Stage

Source = DocumentSource | ItemSource
Batches = Callable[[dict[str, Any] | None], Generator[Batch, None, None]]
VAL_ITEMS = 256  # conversations held out of a mixture for its validation loss


# ----------------------------------------------------------------------------- the stages


def base(config: BaseTrain, world: World) -> Stage:
    """Pretraining from random weights on the documents of `data_dir`."""
    root = base_dir(config.base_dir)
    tokenizer = Tokenizer.load(resolve(root, config.tok_dir))
    data = dataset.load_manifest(resolve(root, config.data_dir), verify=world.is_main)
    architecture = config.gpt_config(tokenizer.vocab_size)
    model = _new_model(architecture, config, world)
    scaling = model.count_parameters()["scaling"]
    horizon = config.tokens or int(config.ratio * scaling)
    batch = config.total_batch_tokens or schedule.batch_tokens(horizon, config.ratio)
    steps = config.steps or max(1, horizon // batch)
    decay = schedule.weight_decay(batch, steps * batch, config.ratio)
    return _of_source(
        "base", config, world, model, tokenizer,
        train=DocumentSource(data.split("train"), tokenizer, config.seed),
        val=DocumentSource(data.split("val"), tokenizer, config.seed),
        steps=steps, batch=batch, decay=decay, source=None, identity={"data": data.fingerprint},
    )  # fmt: skip


def finetune(
    name: str, config: Finetune, world: World, items: Sequence[dict[str, Any]], data_hash: str
) -> Stage:
    """Mid-training or SFT: the newest checkpoint of the stage before, on conversations and texts."""
    model, tokenizer, source, inherited_batch = _continued(name, config, world)
    if not config.from_scratch:
        checkpoint_manager.load_weights(source, model)
    context = model.config.context
    train, val = (
        ItemSource(part, tokenizer, config.seed, supervise=config.supervise, max_tokens=context + 1)
        for part in _split(items, config.seed)
    )
    batch = config.total_batch_tokens or inherited_batch
    steps = (
        config.steps
        or (config.tokens or int(config.epochs * dataloader.epoch_rows(train, context) * context)) // batch
    )
    return _of_source(
        name, config, world, model, tokenizer, train=train, val=val,
        steps=max(1, steps), batch=batch, decay=0.0, source=None if config.from_scratch else source,
        identity={"data": data_hash, "source": sha256_file(source / "manifest.json")},
    )  # fmt: skip


def rl(config: ChatRL, world: World, task: rollout.Task, data_hash: str) -> Stage:
    """Reinforcement learning from the newest checkpoint of `source`, on a task's problems."""
    model, tokenizer, source, inherited_batch = _continued("rl", config, world)
    checkpoint_manager.load_weights(source, model)
    train, val = (part.indices for part in _split(task, config.seed))
    start_model = copy.deepcopy(model).requires_grad_(False) if config.kl else None
    rollouts = rollout.Rollouts(model, tokenizer, task, train, config, world, data_hash, start_model)
    steps = config.steps or int(config.epochs * len(rollouts.prompts) // config.prompts_per_step)
    room = (model.config.context, config.max_tokens)
    asked = rollout.fixed_prompts(task, val[: config.eval_prompts], tokenizer, *room)

    def validate() -> dict[str, float]:
        writer = rollout.writer_of(model, tokenizer, task, config, world)
        rates = rollout.held_out_rates(writer, asked, config.num_samples)
        return {"val_error": 1 - rates["greedy"], **{f"val_{name}": rate for name, rate in rates.items()}}

    print0(f"rl: {steps} steps of {config.prompts_per_step} problems x {config.num_samples} replies")
    # The moments of SFT are not loaded: gradients of another size and kind left them.
    return _assemble(
        "rl", config, world, model, tokenizer, rollouts.batches, validate,
        steps=max(1, steps), batch=config.total_batch_tokens or inherited_batch, decay=0.0, source=None,
        identity={"data": data_hash, "source": sha256_file(source / "manifest.json")},
        objective="val_error",
    )  # fmt: skip


# ----------------------------------------------------------------------------- what they share


class _Start(NamedTuple):
    """What a stage that continues another finds."""

    model: GPT  # of the source's architecture; its weights are still random
    tokenizer: Tokenizer
    source: Path  # the checkpoint
    batch_tokens: int  # of the source's steps


def _continued(name: str, config: Finetune | ChatRL, world: World) -> _Start:
    root = base_dir(config.base_dir)
    source = checkpoint_manager.newest(root / f"{config.source}_{config.source_run or config.run_name}")
    if source is None:
        raise UsageError(f"{name} starts from {config.source}, which has no checkpoint; train it first")
    state = read_json(source / "state.json")
    tokenizer = Tokenizer.load(resolve(root, config.tok_dir))
    if tokenizer.hash != state["identity"]["tokenizer"]:
        raise UsageError(f"--tok-dir {config.tok_dir} holds another tokenizer than {source} was trained with")
    model = _new_model(from_dict(GPTConfig, state["gpt_config"]), config, world)
    return _Start(model, tokenizer, source, state["batch_tokens"])


def _new_model(architecture: GPTConfig, config: Training, world: World) -> GPT:
    torch.set_num_threads(pick_threads(config.threads))
    torch.set_float32_matmul_precision("high")
    dtype, why = pick_dtype(config.dtype, world.device)
    with torch.device("meta"):
        model = GPT(architecture, dtype)
    model = model.to_empty(device=world.device).init_weights(config.seed)
    counts = model.count_parameters()
    print0(
        f"model: {architecture.arch} d{architecture.depth}, width {architecture.width}, "
        f"{counts['total']:,} parameters ({counts['matrix']:,} in matrices); "
        f"{str(dtype).removeprefix('torch.')} ({why}), "
        f"{world.device.type}, {torch.get_num_threads()} threads, {world.size} rank(s)"
    )
    return model


def _of_source(  # noqa: PLR0913  one call a stage, all by name
    name: str, config: Training, world: World, model: GPT, tokenizer: Tokenizer, *,
    train: Source, val: Source, steps: int, batch: int, **rest: Any,
) -> Stage:  # fmt: skip
    """A stage that learns what data sources hold."""
    context = model.config.context
    evaluation.refuse_uncountable(val, tokenizer, context)
    accumulation = config.accumulation(batch, context, world.size)

    def batches(state: dict[str, Any] | None) -> Generator[Batch, None, None]:
        return dataloader.batches(
            train, rows=config.device_batch_rows, context=context, rank=world.rank, world=world.size,
            accumulation=accumulation, state=state, device=world.device,
        )  # fmt: skip

    def validate() -> dict[str, float]:
        return evaluation.source_loss(
            model, tokenizer, val, world, config.device_batch_rows, config.eval_tokens
        )

    print0(
        f"{name}: {steps} steps of {batch:,} tokens "
        f"({accumulation} x {config.device_batch_rows} rows of {context})"
    )
    return _assemble(
        name, config, world, model, tokenizer, batches, validate, steps=steps, batch=batch, **rest
    )


def _assemble(  # noqa: PLR0913  one call a stage, all by name
    name: str, config: Training, world: World, model: GPT, tokenizer: Tokenizer,
    batches: Batches, validate: Callable[[], dict[str, float]], *, steps: int, batch: int, decay: float,
    source: Path | None, identity: dict[str, Any], objective: str = "val_bpb",
) -> Stage:  # fmt: skip
    curve = schedule.Schedule(
        steps, min(config.warmup_steps, steps // 4), config.warmdown_ratio, config.final_lr_ratio
    )
    decay = decay if config.weight_decay is None else config.weight_decay
    tuned = optimizers.build(model, config, world, curve, batch, decay)
    if source is not None:
        missing = checkpoint_manager.load_optimizers(source, tuned)
        if missing:
            print0(
                f"{len(missing)} tensors of optimizer state start at zero: {source} has another optimizer's"
            )

    def sample() -> list[dict[str, str]]:
        return evaluation.samples(model, tokenizer, chat=name != "base")

    return Stage(
        name=name, options=config, model=model, loss_sum=_compiled(model, config), optimizers=tuned,
        batches=batches, steps=steps, validate=validate, sample=sample, objective=objective,
        identity={"tokenizer": tokenizer.hash, "gpt_config": vars(model.config), **identity},
        facts={
            "batch_tokens": batch, "tok_dir": config.tok_dir, "run": config.run_name,
            "threads": torch.get_num_threads(),
        },
    )  # fmt: skip


class Subset(Sequence[dict[str, Any]]):
    """Some of the items, by index, without a copy."""

    def __init__(self, items: Sequence[dict[str, Any]] | rollout.Task, indices: list[int]) -> None:
        self.items, self.indices = items, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        return self.items[self.indices[index]]


def _split(items: Sequence[dict[str, Any]] | rollout.Task, seed: int) -> tuple[Subset, Subset]:
    """(training, validation) items: a tenth, at most VAL_ITEMS, drawn by seed, validates."""
    if len(items) < 2:
        raise UsageError("the mixture has 1 item; it needs 2 or more, since a tenth of them validates")
    order = random.Random(seed).sample(range(len(items)), len(items))
    held_out = max(1, min(VAL_ITEMS, len(items) // 10))
    return Subset(items, order[held_out:]), Subset(items, order[:held_out])


def _compiled(model: GPT, config: Training) -> LossSum:
    if not config.compile:
        return model.loss_sum
    print0("compiling the first step (30 s to 2 minutes on a CPU; cached for the next run)")
    return torch.compile(model.loss_sum, dynamic=False)
