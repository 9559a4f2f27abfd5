"""The data loader: tokens a second, and what packing costs. No peer: upstream's crops, ours does not.

Run: `python -m scripts.bench load --data-dir data --tok-dir tok --json`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from nanochat.bench import Row, row
from nanochat.common import base_dir, resolve
from nanochat.config import Bench
from nanochat.dataloader import DocumentSource, batches
from nanochat.dataset import split_shards
from nanochat.tokenizer import Tokenizer

CONTEXTS = (512, 2048)
ROWS = 8


def run(config: Bench) -> Iterator[Row]:
    """Rows `load_T`, `load_cropped_T` and `load_padding_T` (percent of the tokens) over one epoch."""
    root = base_dir(config.base_dir)
    train, _ = split_shards(resolve(root, config.data_dir))
    source = DocumentSource(train, Tokenizer.load(resolve(root, config.tok_dir)), seed=0)
    for context in CONTEXTS:
        started = time.perf_counter()
        stats: dict[str, int] = {}
        for batch in batches(source, rows=ROWS, context=context, epochs=1):
            stats = batch.stats
            if config.rows and stats["rows"] >= config.rows:
                break
        seconds = time.perf_counter() - started
        total = stats["tokens"] + stats["padding"]
        yield row(f"load_{context}", [seconds], stats["tokens"], "tok/s", torch.get_num_threads())
        for name in ("cropped", "padding"):
            yield row(
                f"load_{name}_{context}", [1.0], 100 * stats[name] / total, "%", torch.get_num_threads()
            )
