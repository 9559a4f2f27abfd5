"""Evaluate a base model: CORE, bits per byte, samples: `python -m scripts.base_eval --depth 12`.

Prints a summary and writes `evals/core.json`, `core.csv`, `core_items.jsonl` (one line a question) and
`base.json` in the run folder; with `--hf FOLDER` those of a transformers model, in `hf_NAME/`. Also under
torchrun. `--compare A B` takes two files of item records and says which model is better, and how surely.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nanochat.common import base_dir, print0, resolve, run_main
from nanochat.config_eval import BaseEval
from nanochat.configurator import parse
from nanochat.core_bundle import open_bundle, task_names

HF_DOCUMENTS = 100  # of each split; a model whose tokens are not ours reads whole documents


def main(argv: list[str]) -> None:
    config = parse(BaseEval, argv, prog="base_eval", about=__doc__)
    if config.compare is not None:
        from nanochat.core_results import compared

        print("\n".join(compared(*config.compare)))
        return
    bundle = None
    if "core" in config.wanted:
        bundle = open_bundle(resolve(base_dir(config.base_dir), config.bundle_dir), task_names(config.tasks))

    from nanochat import core_results, evaluation, hf_model
    from nanochat.likelihood import Likelihood

    if config.hf is not None:
        config = dataclasses.replace(config, documents=config.documents or HF_DOCUMENTS)
        opened: Any = hf_model.loaded(config)
    else:
        opened = evaluation.loaded(config, config.source, config.depth)
    with opened as (world, model, tokenizer, folder):
        scores = bits_per_byte(config, world, model, tokenizer)
        if "samples" in config.wanted:
            if config.hf is not None:
                scores["samples"] = hf_model.samples(model, tokenizer)
            else:
                scores["samples"] = evaluation.samples(model, tokenizer, chat=config.source != "base")
            for sample in scores["samples"]:
                print0(f"> {sample['prompt']}\n  {sample['text']}")
        if scores and world.is_main:
            evaluation.record(folder, "base", scores)
        if bundle is not None:
            scorer = model if config.hf is not None else Likelihood(model)
            result = core_results.run(config, bundle, world, scorer, tokenizer, model.config.context)
            if world.is_main:
                core_results.write(folder, result)


def bits_per_byte(config: BaseEval, world: Any, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Of both splits, if that is wanted."""
    from nanochat import evaluation

    scores = {}
    for split in ("train", "val") if "bpb" in config.wanted else ():
        found = evaluation.shard_loss(dataclasses.replace(config, split=split), world, model, tokenizer)
        scores[f"{split}_bpb"] = found["document_bpb" if config.documents else "val_bpb"]
        print0(f"{split}: {scores[f'{split}_bpb']:.4f} bits per byte")
    return scores


if __name__ == "__main__":
    run_main(main)
