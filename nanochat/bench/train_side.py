"""One tokenizer training in a process of its own, since two of the peers are modules of one name.

What it is not: the benchmark; that is `tokenize.py`, which starts it with the peer's folder first on the
path: `python -m nanochat.bench.train_side SIDE THREADS IDS SHARD...` prints {"seconds", "mib", "tokens"}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from nanochat.dataset import read_documents
from nanochat.tokenizer import split_pattern

UNLIMITED = 10**12


def train(side: str, texts: list[str], ids: int, threads: int) -> int:
    """Train `ids` byte tokens on all of `texts`; returns how many there are. ImportError without the peer."""
    if side == "tokenizers":
        return _train_hugging_face(texts, ids)
    import rustbpe

    if side == "ours":
        limits: dict[str, Any] = {"max_doc_chars": UNLIMITED, "max_chars": UNLIMITED}
        return len(rustbpe.train(texts, ids, split_pattern(), threads=threads, **limits))
    if not hasattr(rustbpe, "Tokenizer"):
        raise ImportError("the published rustbpe is not first on the path")
    peer = rustbpe.Tokenizer()
    peer.train_from_iterator(iter(texts), ids, pattern=split_pattern())
    return len(peer.get_mergeable_ranks())


def _train_hugging_face(texts: list[str], ids: int) -> int:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern()), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=ids, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab_size()


def main(argv: list[str]) -> None:
    side, threads, ids = argv[0], int(argv[1]), int(argv[2])
    # Both peers size their thread pool by it, on first use.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    texts = [text for shard in argv[3:] for text in read_documents(Path(shard))]
    before = _fresh_peak_mib()
    start = time.perf_counter()
    tokens = train(side, texts, ids, threads)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "mib": _peak_mib() - before, "tokens": tokens}))


def _fresh_peak_mib() -> float:
    """The memory now, from which the peak is counted anew, where the kernel can do that (Linux)."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib()


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


if __name__ == "__main__":
    main(sys.argv[1:])
