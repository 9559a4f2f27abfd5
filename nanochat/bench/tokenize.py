"""Training and encoding against the published packages rustbpe, tokenizers and tiktoken, on the shards' text.

Encoding alternates in this process, a fresh encoder each repetition, on distinct strings and the same ranks;
every side's ids are compared first. Training runs in alternating processes; the published rustbpe, whose
name is ours, too, lies in a folder of its own (`--peers`): `uv pip install --target FOLDER rustbpe==0.1.0`.
What it is not: the proof that ids are right (tests/test_rustbpe.py).
Run: `python -m scripts.bench tokenize --json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tiktoken

import rustbpe
from nanochat.bench import Row, measure_fresh, row
from nanochat.bench.hostile import HOSTILE
from nanochat.common import base_dir, resolve
from nanochat.config import Bench
from nanochat.dataset import iter_texts, split_shards
from nanochat.tokenizer import split_pattern

VOCABULARIES = (32_768, 65_536)
ENCODE_VOCABULARY = 32_768
SIZES = {"100B": 100, "2KB": 2_048, "1MB": 1 << 20}  # characters, nearly all of one byte
TEXT_CHARS = 16 << 20
HOSTILE_CHARS = 1 << 20
SIDES = {"ours": "", "rustbpe": "rustbpe 0.1.0", "tokenizers": "tokenizers BpeTrainer"}
Work = Callable[[], Any]
Make = Callable[[], Work]


def run(config: Bench) -> Iterator[Row]:
    """Rows `encode_*` and `hostile_*` against tiktoken, `threads_*` and `doubled_*` against ourselves, and
    `train_*` and `train_memory_*` against rustbpe and tokenizers."""
    shards = split_shards(resolve(base_dir(config.base_dir), config.data_dir))[0]
    texts = list(iter_texts(shards))
    tokens = rustbpe.train(texts, ENCODE_VOCABULARY)
    yield from _encode(config, tokens, "".join(texts)[:TEXT_CHARS])
    yield from _hostile(config, tokens)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    for ids in VOCABULARIES:
        for threads in config.thread_counts:
            yield from _train(config, [str(shard.path) for shard in shards], megabytes, ids, threads)


# ----------------------------------------------------------------------------- encoding


def _encode(config: Bench, tokens: list[bytes], text: str) -> Iterator[Row]:
    for name, size in SIZES.items():
        documents = list(dict.fromkeys(text[i : i + size] for i in range(0, len(text), size)))
        megabytes = sum(len(document.encode()) for document in documents) / 1e6
        sides = {
            "tiktoken": partial(_tiktoken, tokens, documents),
            "one": partial(_one_by_one, tokens, documents),
            **{f"list{n}": partial(_lists, tokens, documents, n) for n in config.thread_counts},
            **{f"flat{n}": partial(_flat, tokens, documents, n) for n in config.thread_counts},
        }
        _check_equal(sides, documents)
        seconds = measure_fresh(sides, config.repetitions)
        for kind in list(sides)[1:]:
            threads = int(kind[4:] or 1) if kind != "one" else 1
            peer = ("tiktoken encode_ordinary", seconds["tiktoken"])
            yield row(f"encode_{name}_{kind}", seconds[kind], megabytes, "MB/s", threads, peer)
        for kind in ("list", "flat") if {1, 2} <= set(config.thread_counts) else ():
            one, two = seconds[f"{kind}1"], seconds[f"{kind}2"]
            yield row(f"threads_{name}_{kind}", two, megabytes, "MB/s", 2, ("our 1 thread", one))


def _tiktoken(tokens: list[bytes], documents: list[str]) -> Work:
    ranks = {token: rank for rank, token in enumerate(tokens)}
    peer = tiktoken.Encoding("peer", pat_str=split_pattern(), mergeable_ranks=ranks, special_tokens={})
    return lambda: [peer.encode_ordinary(document) for document in documents]


def _one_by_one(tokens: list[bytes], documents: list[str]) -> Work:
    ours = rustbpe.Encoder(tokens, split_pattern())
    return lambda: [ours.encode(document) for document in documents]


def _lists(tokens: list[bytes], documents: list[str], threads: int) -> Work:
    return partial(rustbpe.Encoder(tokens, split_pattern()).encode_batch, documents, threads)


def _flat(tokens: list[bytes], documents: list[str], threads: int) -> Work:
    return partial(rustbpe.Encoder(tokens, split_pattern()).encode_batch_flat, documents, threads)


def _check_equal(sides: Mapping[str, Make], documents: list[str]) -> None:
    expected = sides["tiktoken"]()()
    flat = b"".join(i.to_bytes(4, sys.byteorder) for ids in expected for i in ids)
    for name, make in sides.items():
        found = make()()
        if found != expected and not (isinstance(found, tuple) and found[0] == flat):
            raise AssertionError(f"{name} and tiktoken differ on one of {len(documents)} texts")


def _hostile(config: Bench, tokens: list[bytes]) -> Iterator[Row]:
    """A row without a peer is one on which tiktoken panics. `doubled` has half the text as its peer, both in
    flat arrays and apart from the rest: what a megabyte of Python's integers leaves behind in the C library's
    memory decides whether the system must clear new pages, which can take longer than the encoding."""
    for name, make in HOSTILE.items():
        whole = [make(HOSTILE_CHARS)]
        sides = {"ours": partial(_one_by_one, tokens, whole)}
        if _survives(tokens, whole):
            sides["tiktoken"] = partial(_tiktoken, tokens, whole)
            _check_equal(sides, whole)
        seconds = measure_fresh(sides, config.repetitions)
        peer = ("tiktoken", seconds["tiktoken"]) if "tiktoken" in seconds else None
        megabytes = len(whole[0].encode()) / 1e6
        yield row(f"hostile {name}", seconds["ours"], megabytes, "MB/s", 1, peer)
        pair = {"whole": whole, "half": [make(HOSTILE_CHARS // 2)]}
        halves = measure_fresh(
            {side: partial(_flat, tokens, text, 1) for side, text in pair.items()}, config.repetitions
        )
        yield row(f"doubled {name}", halves["whole"], megabytes, "MB/s", 1, ("half", halves["half"]))


def _survives(tokens: list[bytes], documents: list[str]) -> bool:
    try:
        _tiktoken(tokens, documents)()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return False
    return True


# ----------------------------------------------------------------------------- training


def _train(config: Bench, shards: list[str], megabytes: float, ids: int, threads: int) -> Iterator[Row]:
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(config.repetitions):
        for side, results in found.items():
            results.append(_in_a_process(config, side, threads, ids, shards))
    seconds = {side: [result["seconds"] for result in results] for side, results in found.items()}
    memory = {side: [result["mib"] for result in results] for side, results in found.items()}
    for side, name in list(SIDES.items())[1:]:
        yield row(f"train_{ids}", seconds["ours"], megabytes, "MB/s", threads, (name, seconds[side]))
        yield row(f"train_memory_{ids}", memory["ours"], 1, "of a MiB", threads, (name, memory[side]))


def _in_a_process(config: Bench, side: str, threads: int, ids: int, shards: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "nanochat.bench.train_side", side, str(threads), str(ids), *shards]
    path = [str(Path(__file__).parents[2])]
    if side == "rustbpe":
        peers = resolve(base_dir(config.base_dir), config.peers)
        if not (peers / "rustbpe").is_dir():
            raise ImportError(f"no rustbpe in {peers} (`uv pip install --target {peers} rustbpe==0.1.0`)")
        path.insert(0, str(peers))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)
