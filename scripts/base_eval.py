"""Evaluate a base model: bits per byte on both splits, and samples. `python -m scripts.base_eval --depth 12`.

Prints a summary and writes `evals/base.json` in the run folder.
"""

from __future__ import annotations

import dataclasses

from nanochat.common import print0, run_main
from nanochat.config import BaseEval
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(BaseEval, argv, prog="base_eval", about=__doc__)

    from nanochat import evaluation

    with evaluation.loaded(config, config.source, config.depth) as (world, model, tokenizer, folder):
        scores: dict[str, object] = {}
        for split in ("train", "val"):
            found = evaluation.shard_loss(dataclasses.replace(config, split=split), world, model, tokenizer)
            scores[f"{split}_bpb"] = found["val_bpb"]
            print0(f"{split}: {found['val_bpb']:.4f} bits per byte, {found['val_loss']:.4f} nats per token")
        scores["samples"] = evaluation.samples(model, tokenizer, chat=config.source != "base")
        for sample in scores["samples"]:  # type: ignore[attr-defined]
            print0(f"> {sample['prompt']}\n  {sample['text']}")
        if world.is_main:
            evaluation.record(folder, "base", scores)


if __name__ == "__main__":
    run_main(main)
