"""Let a base model continue a text: `python -m scripts.base_sample --depth 12 -p "Once upon a time"`.

Without a prompt it starts from nothing but <|bos|>. Several prompts: one a line on stdin, `-p -`. Or token
ids, `--seed-tokens 5,17,3`, which prints ids as well. (`--seed` is the seed of the random numbers.)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nanochat.common import UsageError, run_main
from nanochat.config import BaseSample
from nanochat.configurator import parse

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer


def prompts(config: BaseSample, tokenizer: Tokenizer) -> list[list[int]]:
    """The prompts that the options mean, as ids; texts start with bos, given ids are taken as they are."""
    if config.seed_tokens is not None:
        if config.prompt is not None:
            raise UsageError("give --prompt or --seed-tokens, not both")
        return [list(config.seed_tokens)]
    lines = [line.rstrip("\n") for line in sys.stdin] if config.prompt == "-" else [config.prompt or ""]
    return [[tokenizer.bos_id, *tokenizer.encode(line)] for line in lines]


def main(argv: list[str]) -> None:
    config = parse(BaseSample, argv, prog="base_sample", about=__doc__)

    from nanochat.engine import Engine
    from nanochat.evaluation import loaded

    with loaded(config, config.source, config.depth) as (_, model, tokenizer, _):
        starts = prompts(config, tokenizer)
        completions = Engine(model, tokenizer).generate_batch(
            starts, num_samples=config.num_samples, max_tokens=config.max_tokens, seed=config.seed,
            temperature=config.temperature, top_k=config.top_k, top_p=config.top_p,
        )  # fmt: skip
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        for i, completion in enumerate(completions):
            ids = [*starts[i // config.num_samples], *completion.ids]
            if len(completions) > 1:
                print(f"--- {i + 1} of {len(completions)}")
            if config.seed_tokens is not None:
                print(*ids, sep=",")
            print(tokenizer.decode(i for i in ids if i != tokenizer.bos_id))


if __name__ == "__main__":
    run_main(main)
