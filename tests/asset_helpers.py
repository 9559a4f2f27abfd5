"""What the tests of assets share: small Parquet files, a hub that has some, and short names for the calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hub_server import Hub, serve

from nanochat import fetch
from nanochat.assets import Asset, Wanted, needed
from nanochat.ledger import check

CORPUS = "datasets/karpathy/fineweb-edu-100b-shuffle"


def parquet(path: Path, rows: int = 40) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [f"{path.name} {index} " + "word " * 50 for index in range(rows)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="none")
    return path.read_bytes()


@contextlib.contextmanager
def small_hub(folder: Path) -> Iterator[Hub]:
    """A hub with three shards of the default corpus and one data set in two splits."""
    for index in (0, 1, 1822):
        parquet(folder / CORPUS / f"shard_{index:05d}.parquet")
    for split in ("train", "test"):
        for part in range(2):
            parquet(folder / "datasets/openai/gsm8k/main" / f"{split}-{part:05d}-of-00002.parquet")
    (folder / "datasets/openai/gsm8k/README.md").write_text("small, so it is not in LFS")
    with serve(folder) as running:
        yield running


def shards(count: int = 2) -> list[Asset]:
    return needed(Wanted(stages="base", shards=count, tok_dir="tok"))[: count + 1]


def quiet(text: str) -> None:
    pass


def get(base: Path, assets: list[Asset], **options: bool) -> fetch.Plan:
    return fetch.fetch(base, assets, say=quiet, **options)


def kinds(base: Path, assets: list[Asset], verify: bool = False) -> list[str]:
    return [fault.kind for fault in check(base, assets, verify)]
