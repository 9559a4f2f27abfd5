"""What the evaluation scripts share: load a stage's model, measure it on shards, sample, record.

What it is: the wiring around `loss_eval` and `engine` outside of training. What it is not: task loops
(`tasks/evaluate.py`). Run: `python -m scripts.base_eval`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nanochat import checkpoint_manager, dataloader, dataset, distributed
from nanochat.calculator import calculate
from nanochat.common import base_dir, resolve, write_json
from nanochat.config import Common
from nanochat.config_eval import BaseLoss
from nanochat.distributed import World
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.loss_eval import document_bpb, evaluate_loss
from nanochat.probe import pick_dtype, pick_threads
from nanochat.tokenizer import Tokenizer

BASE_PROMPTS = (
    "Once upon a time", "The capital of France is", "The chemical symbol of gold is",
    "If 5 * x + 3 = 13, then x is",
)  # fmt: skip
CHAT_PROMPTS = ("Who are you?", "What is 12 plus 30?", "How do you spell garden?")
SAMPLE_TOKENS = 48


@contextlib.contextmanager
def loaded(config: Common, source: str, depth: int) -> Iterator[tuple[World, GPT, Tokenizer, Path]]:
    """(world, model, tokenizer, run folder) of the newest checkpoint of a stage; ranks joined and left."""
    world = distributed.init(config.device)
    try:
        torch.set_num_threads(pick_threads(config.threads))
        dtype, _ = pick_dtype(config.dtype, world.device)
        root, run = base_dir(config.base_dir), config.run or f"d{depth}"
        model, tokenizer, _ = checkpoint_manager.load_model(root, source, run, world.device, dtype)
        yield world, model, tokenizer, root / f"{source}_{run}"
    finally:
        distributed.close()


def source_loss(
    model: GPT, tokenizer: Tokenizer, source: dataloader.Source, world: World, rows: int, max_tokens: int
) -> dict[str, float]:
    """`val_loss` and `val_bpb` of one pass over a source, at most `max_tokens` tokens, summed over ranks."""
    context = model.config.context
    steps = max(1, max_tokens // (rows * context * world.size))
    batches = dataloader.batches(
        source, rows=rows, context=context, rank=world.rank, world=world.size, epochs=1, device=world.device
    )
    token_bytes = torch.from_numpy(tokenizer.token_bytes).to(world.device)
    return evaluate_loss(model, itertools.islice(batches, steps), token_bytes, world)


def refuse_uncountable(source: dataloader.Source, tokenizer: Tokenizer, context: int) -> None:
    """ValueError before the first step, rather than behind the last, if validation has nothing to count."""
    sizes = torch.from_numpy(tokenizer.token_bytes)
    with contextlib.closing(dataloader.batches(source, rows=1, context=context, epochs=1)) as rows:
        if not any(sizes[row.targets[row.targets >= 0]].any() for row in rows):
            raise ValueError(
                "the validation data has no text that counts; give it more documents or conversations"
            )


def shard_loss(config: BaseLoss, world: World, model: GPT, tokenizer: Tokenizer) -> dict[str, float]:
    """Loss on the shards of `config.split`, or on its first `config.documents` documents."""
    manifest = dataset.load_manifest(resolve(base_dir(config.base_dir), config.data_dir), verify=False)
    if config.documents:
        groups = ((s.path, g) for s in manifest.split(config.split) for g in range(len(s.row_groups)))
        texts = itertools.chain.from_iterable(dataset.read_row_group(*group) for group in groups)
        return document_bpb(model, tokenizer, list(itertools.islice(texts, config.documents)))
    source = dataloader.DocumentSource(manifest.split(config.split), tokenizer, config.seed)
    return source_loss(model, tokenizer, source, world, config.device_batch_rows, config.eval_tokens)


def samples(
    model: GPT, tokenizer: Tokenizer, chat: bool, prompts: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """Greedy continuations of (or replies to) a few prompts, for the log and the report."""
    engine = Engine(model, tokenizer, tool=calculate)
    prompts = prompts or (CHAT_PROMPTS if chat else BASE_PROMPTS)
    if chat:
        ids = [
            tokenizer.render_for_completion({"messages": [{"role": "user", "content": p}]}) for p in prompts
        ]
    else:
        ids = [[tokenizer.bos_id, *tokenizer.encode(p)] for p in prompts]
    replies = engine.generate_batch(ids, max_tokens=SAMPLE_TOKENS, temperature=0.0)
    return [{"prompt": p, "text": tokenizer.decode(r.ids)} for p, r in zip(prompts, replies, strict=True)]


def record(folder: Path, name: str, scores: dict[str, Any]) -> None:
    """Write `evals/NAME.json` in a run folder."""
    write_json(folder / "evals" / f"{name}.json", scores)
