"""The best-fit-crop loader that ours is compared with, and both on real text."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from crop_loader import CropSource, crop_rows
from loader_helpers import BYTES, take

from nanochat.dataloader import DocumentSource
from nanochat.dataset import iter_texts, load_manifest, split_shards, write_shards
from nanochat.tokenizer import Tokenizer


def test_crop_loader_by_hand() -> None:
    documents = [np.full(n, n, np.int32) for n in (7, 3, 4, 9)]
    rows, cropped = crop_rows(documents, 8, 10)
    assert [r.tolist() for r in rows] == [[7] * 7 + [3], [4] * 4 + [9] * 4] and cropped == 2 + 5


def test_crop_source_fits_the_data_path(tmp_path: Path) -> None:
    write_shards(tmp_path, [f"document {i} " * (1 + i % 9) for i in range(400)], ["v"])
    train, _ = split_shards(tmp_path)
    stats = take(CropSource(train, BYTES, 1, context=64), epochs=1, context=64)[-1].stats
    ours = take(DocumentSource(train, BYTES, 1), epochs=1, context=64)[-1].stats
    assert stats["cropped"] > 0.2 * stats["tokens"] and ours["cropped"] == 0
    assert stats["padding"] < 64 and ours["targets"] > stats["targets"]


@pytest.mark.slow
@pytest.mark.skipif(
    "NANOCHAT_TEST_DATA" not in os.environ, reason="NANOCHAT_TEST_DATA (a data folder) is not set"
)
@pytest.mark.parametrize("context", [512, 2048])
def test_waste_on_real_text(context: int, capsys: pytest.CaptureFixture[str]) -> None:
    shards = load_manifest(Path(os.environ["NANOCHAT_TEST_DATA"]) / "pretrain", verify=False).split("val")
    tokenizer = Tokenizer.train(iter_texts(shards), 4096)
    lines = []
    for name, source in (
        ("ours", DocumentSource(shards, tokenizer, 1)),
        ("crop", CropSource(shards, tokenizer, 1, context)),
    ):
        s = take(source, epochs=1, context=context)[-1].stats
        total = s["tokens"] + s["cropped"]
        lines.append(
            f"T={context} {name}: padding {s['padding'] / (s['padding'] + s['tokens']):.2%}, "
            f"cropped {s['cropped'] / total:.2%} of {total:,} tokens"
        )
        assert name == "crop" or (s["padding"] < 0.04 * s["tokens"] and not s["cropped"])
    with capsys.disabled():
        print("", *lines, sep="\n")
