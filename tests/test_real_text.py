"""The pipeline on real text, end to end, in a short form: tokenizer, base, mid, SFT, evaluation.

Run: `NANOCHAT_TEST_DATA=... pytest -m slow tests/test_real_text.py`. The long form, with figures to compare,
is `python -m scripts.time_to_quality`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat import metrics
from nanochat.common import read_json

SHAPE = ["--depth", "2", "--head-dim", "32", "--context", "256", "--device-batch-rows", "4"]
SHORT = ["--total-batch-tokens", "2048", "--eval-tokens", "8192", "--no-compile", "--save-every-steps", "0"]


@pytest.mark.slow
def test_every_stage_learns_from_real_text(test_data: Path, tmp_path: Path) -> None:
    shards = tmp_path / "data"
    shards.mkdir()
    for shard in (test_data / "pretrain").glob("shard_*.parquet"):
        (shards / shard.name).symlink_to(shard)

    def run(script: str, *args: str) -> None:
        command = [
            sys.executable,
            "-m",
            f"scripts.{script}",
            "--base-dir",
            str(tmp_path),
            "--run",
            "real",
            *args,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}
        )
        assert done.returncode == 0, done.stdout + done.stderr

    chat = str(test_data / "chat" / "train.parquet")
    run("tok_train", "--vocab-size", "2048", "--max-chars", "5_000_000")
    run("base_train", *SHAPE, *SHORT, "--steps", "40", "--warmup-steps", "5", "--lr-scale", "4")
    run(
        "mid_train", *SHORT, "--device-batch-rows", "4", "--steps", "10", "--mixture", chat, "--lr-scale", "3"
    )
    run("chat_sft", *SHORT, "--device-batch-rows", "4", "--steps", "10", "--mixture", chat, "--lr-scale", "2")
    core = ["--bundle-dir", str(test_data / "eval_bundle"), "--max-per-task", "2"]
    run("base_eval", "--eval-tokens", "8192", *core)
    run("base_loss", "--documents", "20", "--source", "sft")

    for stage in ("base", "mid", "sft"):
        losses = [
            r["loss"] for r in metrics.read(tmp_path / f"{stage}_real" / "metrics.jsonl") if "loss" in r
        ]
        assert len(losses) >= 8 and all(map(math.isfinite, losses))
        if stage == "base":  # a few steps of finetuning vary more between batches than they learn
            assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    scores = read_json(tmp_path / "base_real" / "evals" / "base.json")
    assert 1.5 < scores["val_bpb"] < 3.2  # 3.4 untrained
    assert 1.5 < read_json(tmp_path / "sft_real" / "evals" / "loss_val.json")["document_bpb"] < 4
