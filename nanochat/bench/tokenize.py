"""Encoding against tiktoken on the same ranks, and training time, on the shards' text.

Run: `python -m scripts.bench tokenize --data-dir data --tok-dir tok --json`.
"""

from __future__ import annotations

from collections.abc import Iterator

import tiktoken

import rustbpe
from nanochat.bench import Row, measure, row
from nanochat.common import base_dir, resolve
from nanochat.config import Bench
from nanochat.dataset import read_row_group, split_shards
from nanochat.tokenizer import Tokenizer


def run(config: Bench) -> Iterator[Row]:
    """Rows `encode_SIZE` in MB/s, one thread, documents of 100 B, 2 KB and 1 MB."""
    root = base_dir(config.base_dir)
    tokenizer = Tokenizer.load(resolve(root, config.tok_dir))
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    peer = tiktoken.Encoding("peer", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={})
    ours = rustbpe.Encoder(tokenizer.tokens, tokenizer.pattern)
    shard = split_shards(resolve(root, config.data_dir))[0][0]
    text = "\n".join(read_row_group(shard.path, 0))[:2_000_000]
    for name, size in (("100B", 100), ("2KB", 2_000), ("1MB", 1_000_000)):
        documents = [text[i : i + size] for i in range(0, len(text), size)]
        assert [ours.encode(d) for d in documents] == [peer.encode_ordinary(d) for d in documents]
        sides = {
            "ours": lambda d=documents: [ours.encode(x) for x in d],
            "tiktoken": lambda d=documents: [peer.encode_ordinary(x) for x in d],
        }
        seconds = measure(sides, config.repetitions)
        megabytes = sum(len(d.encode()) for d in documents) / 1e6
        yield row(f"encode_{name}", seconds["ours"], megabytes, "MB/s", 1, ("tiktoken", seconds["tiktoken"]))
