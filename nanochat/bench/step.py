"""A training step (forward, backward, optimizer) against transformers' model of the same shape.

Ours: `classic` with AdamW against NanoChatForCausalLM with torch's fused AdamW, both compiled, same
precision, same 7,340,032 parameters; then `modern` with Muon against our `classic`. What it is not:
a quality comparison. Run: `python -m scripts.bench step --json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from nanochat import optimizers, schedule
from nanochat.bench import Row, measure, row
from nanochat.config import Bench, GPTConfig, Training
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.probe import pick_dtype

SHAPE = GPTConfig(
    vocab_size=8192, depth=4, width=256, heads=4, kv_heads=4, context=512, arch="classic", window_pattern="L"
)
ROWS = 8


def run(config: Bench) -> Iterator[Row]:
    """Rows `step_classic` and `step_modern` for each thread count."""
    dtype, _ = pick_dtype("auto", torch.device("cpu"))
    batch = torch.randint(
        SHAPE.vocab_size, (ROWS, SHAPE.context + 1), generator=torch.Generator().manual_seed(0)
    )
    tokens = ROWS * SHAPE.context
    for threads in config.thread_counts:
        torch.set_num_threads(threads)
        torch.compiler.reset()
        sides = {
            "classic": _ours("classic", "adamw", dtype, batch, config.compile),
            "modern": _ours("modern", "muon", dtype, batch, config.compile),
            "transformers": _transformers(dtype, batch, config.compile),
        }
        seconds = measure(sides, config.repetitions)
        peer = ("transformers NanoChatForCausalLM", seconds["transformers"])
        yield row("step_classic", seconds["classic"], tokens, "tok/s", threads, peer)
        yield row(
            "step_modern", seconds["modern"], tokens, "tok/s", threads, ("our classic", seconds["classic"])
        )


def _ours(
    arch: str, optimizer: str, dtype: torch.dtype, batch: torch.Tensor, compiled: bool
) -> Callable[[], None]:
    model = GPT(dataclasses.replace(SHAPE, arch=arch), dtype).init_weights(0)  # type: ignore[arg-type]
    options = Training(optimizer=optimizer)  # type: ignore[arg-type]
    world = World(0, 0, 1, torch.device("cpu"))
    tuned = optimizers.build(model, options, world, schedule.Schedule(10**6), batch.numel(), 0.1)
    loss_sum = torch.compile(model.loss_sum, dynamic=False) if compiled else model.loss_sum
    inputs, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
    count = iter(range(10**6))

    def step() -> None:
        (loss_sum(inputs, targets) / targets.numel()).backward()
        tuned.step(next(count))
        model.zero_grad(set_to_none=True)

    return step


def _transformers(dtype: torch.dtype, batch: torch.Tensor, compiled: bool) -> Callable[[], None]:
    from transformers import NanoChatConfig, NanoChatForCausalLM

    shape = NanoChatConfig(
        vocab_size=SHAPE.vocab_size, hidden_size=SHAPE.width, intermediate_size=SHAPE.mlp_width,
        use_cache=False, num_hidden_layers=SHAPE.depth, num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        max_position_embeddings=SHAPE.context, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    model = NanoChatForCausalLM(shape)
    assert sum(p.numel() for p in model.parameters()) == 7_340_032
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model, dynamic=False) if compiled else model
    inputs, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = forward(input_ids=inputs).logits
        F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
