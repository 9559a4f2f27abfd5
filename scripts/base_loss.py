"""Bits per byte of a model on the training or validation shards: `python -m scripts.base_loss --split val`.

Prints one JSON line and writes `evals/loss_SPLIT.json` in the run folder.
"""

from __future__ import annotations

import json

from nanochat.common import print0, run_main
from nanochat.config_eval import BaseLoss
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(BaseLoss, argv, prog="base_loss", about=__doc__)

    from nanochat import evaluation

    with evaluation.loaded(config, config.source, config.depth) as (world, model, tokenizer, folder):
        scores = evaluation.shard_loss(config, world, model, tokenizer)
        if world.is_main:
            evaluation.record(folder, f"loss_{config.split}", scores)
        print0(json.dumps(scores))


if __name__ == "__main__":
    run_main(main)
