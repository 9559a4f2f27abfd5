"""The embedded world as a data folder: text to pretrain on, conversations, and exams kept from both.

What it is: `write_world` writes, from a seed and offline, everything that the laptop run learns from. The
parts are in `nanochat/world/`. What it is not: a benchmark of anything but whether training works.
Run: `python -m scripts.sample_world --megabytes 20`.

    shard_00000.parquet ...   documents; the last shard is the validation split (manifest.json)
    mid.jsonl                 conversations, and every sixth item a document, so that the facts stay fresh
    sft.jsonl                 conversations
    exams.json                {"seed": ..., "world_mc": [...], ...}
    world.json                every fact, what is held out, and how much was written
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nanochat.common import UsageError, atomic_path, read_json, write_json
from nanochat.dataset import write_shards
from nanochat.world.chat import conversations
from nanochat.world.exams import make_exams
from nanochat.world.facts import World, make_world
from nanochat.world.prose import documents

SHARD_MB = 4.0
VALIDATION_MB = 0.25
MID_TEXT_SHARE = 1 / 6  # of the items, which is about 30% of the tokens


def write_world(directory: Path, seed: int, megabytes: float, mid: int, sft: int) -> dict[str, Any]:
    """Write the data folder, or keep it if it is already there; returns the summary that `world.json` holds.

    `megabytes` of training text (10^6 bytes), `mid` items and `sft` conversations. ValueError if an amount is
    not positive or the folder holds other data, which is never overwritten.
    """
    parameters = {"seed": seed, "megabytes": megabytes, "mid": mid, "sft": sft}
    if min(megabytes, mid, sft) <= 0:
        raise UsageError(f"{parameters}: megabytes, mid and sft must be more than 0")
    world = make_world(seed)
    exams = make_exams(world)
    identifier = {**parameters, "fingerprint": _fingerprint(world, exams)}
    if summary := _kept(directory, identifier):
        return summary
    directory.parent.mkdir(parents=True, exist_ok=True)
    temp = directory.with_name(f".{directory.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        summary = _write(temp, world, exams, parameters, identifier)
        _commit(temp, directory)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return summary


def _commit(temp: Path, directory: Path) -> None:
    """Give a finished folder its name. Two runs may write the same world at once, byte for byte."""
    with contextlib.suppress(OSError):  # it is there, and not empty
        temp.rename(directory)
        return
    for path in sorted(temp.iterdir(), key=lambda path: path.name == "world.json"):
        path.replace(directory / path.name)


def _write(
    directory: Path,
    world: World,
    exams: dict[str, Any],
    parameters: dict[str, Any],
    identifier: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    seed, megabytes, mid, sft = parameters.values()
    train = _until(documents(world, "train"), megabytes * 1e6)
    val = _until(documents(world, "val"), VALIDATION_MB * 1e6)
    manifest = write_shards(directory, train, val, shard_mb=SHARD_MB, origin={"sample_world": identifier})
    _write_lines(directory / "mid.jsonl", _mid_items(world, mid))
    _write_lines(directory / "sft.jsonl", conversations(world, "sft", seed, sft))
    write_json(directory / "exams.json", {"seed": seed, **exams})
    names = [
        "exams.json",
        "manifest.json",
        "mid.jsonl",
        "sft.jsonl",
        *(shard.name for shard in manifest.shards),
    ]
    summary = {
        **parameters,
        "entities": len(world.entities), "facts": len(world.pairs), "asked_pairs": len(world.asked_pairs),
        "held_out_pairs": len(world.held_out_pairs), "unseen_entities": len(world.unseen),
        "documents": sum(s.rows for s in manifest.split("train")),
        "exams": {name: len(items) for name, items in exams.items()},
    }  # fmt: skip
    files = {name: (directory / name).stat().st_size for name in names}
    described = {"parameters": identifier, "summary": summary, "files": files, **world.describe()}
    write_json(directory / "world.json", described)
    return summary


def _kept(directory: Path, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished folder with these parameters, or None if it is to be written."""
    path = directory / "world.json"
    if not path.exists():
        if directory.is_dir() and any(directory.glob("shard_*.parquet")):
            raise UsageError(
                f"{directory} holds shards that are not a sample world; choose another --data-dir"
            )
        return None
    stored = read_json(path)
    if stored.get("parameters") != parameters:
        raise UsageError(
            f"{directory} holds a sample world made with {stored.get('parameters')}, not {parameters}; "
            "choose another --data-dir, or delete the folder"
        )
    sizes = stored.get("files", {"": -1})
    there = all(
        (directory / name).is_file() and (directory / name).stat().st_size == n for name, n in sizes.items()
    )
    return stored["summary"] if there else None


def _fingerprint(world: World, exams: dict[str, Any]) -> str:
    """Changes with anything that changes what is written: facts, wordings, conversations, exams."""
    texts = list(itertools.islice(documents(world, "fingerprint"), 300))
    chats = list(conversations(world, "fingerprint", 0, 300))
    return hashlib.sha256(json.dumps([world.describe(), texts, chats, exams]).encode()).hexdigest()[:16]


def _until(texts: Iterable[str], limit_bytes: float) -> Iterator[str]:
    """Texts until they have `limit_bytes` in all; at least one."""
    size = 0
    for text in texts:
        yield text
        size += len(text)  # ASCII: a character is a byte
        if size >= limit_bytes:
            return


def _mid_items(world: World, count: int) -> Iterator[dict[str, Any]]:
    """Conversations and documents in random order; the documents are new ones, not those of the shards."""
    rng = random.Random(f"mid {world.seed}")
    texts, chats = documents(world, "mid"), conversations(world, "mid", world.seed, count)
    for _ in range(count):
        yield {"text": next(texts)} if rng.random() < MID_TEXT_SHARE else next(chats)  # type: ignore[misc]


def _write_lines(path: Path, items: Iterable[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
