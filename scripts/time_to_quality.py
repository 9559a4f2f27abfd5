"""Bits per byte after a few budgets of pretraining, over seeds, beside the peer's stored rows.

`python -m scripts.time_to_quality --data-dir ... --tok-dir ...` trains d4 (heads of 64, 512 tokens, full
window, 8 rows a step) for each budget and seed, each a run of its own, and measures whole validation
documents. A finished run is not repeated. One JSON line a budget: about an hour on 2 cores for all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from nanochat.common import base_dir, read_json, run_main
from nanochat.config import TimeToQuality
from nanochat.configurator import parse

SHAPE = [
    "--depth",
    "4",
    "--head-dim",
    "64",
    "--context",
    "512",
    "--window-pattern",
    "L",
    "--device-batch-rows",
    "8",
]
RECIPE = ["--preset", "short", "--total-batch-tokens", "4096", "--eval-tokens", "40960"]
PEERS = Path(__file__).parents[1] / "experiments" / "peers.json"


def measure(config: TimeToQuality, tokens: int, seed: int) -> float:
    """Train one run (or find it finished) and return its bits per byte."""
    run = f"ttq_{tokens}_{seed}"
    places = [
        "--base-dir",
        str(base_dir(config.base_dir)),
        "--data-dir",
        config.data_dir,
        "--tok-dir",
        config.tok_dir,
    ]
    shared = [*places, "--run", run, "--seed", str(seed)]
    train = ["scripts.base_train", *RECIPE, *SHAPE, "--steps", str(tokens // 4096), *shared]
    loss = ["scripts.base_loss", *shared, "--documents", str(config.documents)]
    for command in (train, loss):
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=sys.stderr)
    return read_json(base_dir(config.base_dir) / f"base_{run}" / "evals" / "loss_val.json")["document_bpb"]


def main(argv: list[str]) -> None:
    config = parse(TimeToQuality, argv, prog="time_to_quality", about=__doc__)
    peers = read_json(PEERS)["time_to_quality"]
    for tokens in map(int, config.budgets.split(",")):
        found = [measure(config, tokens, seed) for seed in range(1, config.seeds + 1)]
        bar = peers.get(str(tokens))
        row = {"name": f"bpb_{tokens}", "value": statistics.mean(found), "unit": "bits/byte", "n": len(found)}
        print(json.dumps({**row, "spread": max(found) - min(found), "peer": bar, "seeds": found}), flush=True)


if __name__ == "__main__":
    run_main(main)
