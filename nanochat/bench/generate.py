"""Generation with the KV cache, d4, random weights: prefill and decode. Peers come with the serving work.

Run: `python -m scripts.bench generate --json`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nanochat.bench import Row, measure, row
from nanochat.bench.step import SHAPE
from nanochat.config import Bench
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.probe import pick_dtype
from nanochat.tokenizer import Tokenizer, split_pattern

PROMPT_TOKENS, NEW_TOKENS = 128, 48


def run(config: Bench) -> Iterator[Row]:
    """Rows `prefill_512` and `decode_bB` for batches of 1, 4, 16."""
    dtype, _ = pick_dtype("auto", torch.device("cpu"))
    tokenizer = Tokenizer([bytes([i]) for i in range(256)], split_pattern())
    engine = Engine(GPT(SHAPE, dtype).init_weights(0).eval(), tokenizer)
    prompt = torch.randint(256, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    for threads in config.thread_counts:
        torch.set_num_threads(threads)
        seconds = measure(
            {"prefill": lambda: engine.generate_batch([prompt[:511]], max_tokens=1)}, config.repetitions
        )["prefill"]
        yield row("prefill_511", seconds, 511, "tok/s", threads)
        for batch in (1, 4, 16):
            prompts = [prompt[i : i + PROMPT_TOKENS] for i in range(batch)]
            work = {
                "decode": lambda p=prompts: engine.generate_batch(
                    p, max_tokens=NEW_TOKENS, temperature=0, stop=[]
                )
            }
            seconds = measure(work, config.repetitions)["decode"]
            yield row(f"generate_b{batch}", seconds, batch * NEW_TOKENS, "tok/s", threads)
