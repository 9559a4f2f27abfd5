"""Pretrain: `python -m scripts.base_train --depth 12`, or under torchrun, or under srun.

Reads the Parquet shards of `--data-dir` and the tokenizer of `--tok-dir`; writes `base_RUN/` below the
base folder. The same command resumes a stopped run, and does nothing for a finished one.
"""

from __future__ import annotations

from nanochat.common import EXIT_DONE, run_main
from nanochat.config import BaseTrain
from nanochat.configurator import parse
from nanochat.run_folder import claim


def main(argv: list[str]) -> int:
    config = parse(BaseTrain, argv, prog="base_train", about=__doc__)
    folder = claim("base", config)
    if folder is None:
        return EXIT_DONE

    from nanochat import stages
    from nanochat.runner import train

    return train(folder, config, lambda world: stages.base(config, world))


if __name__ == "__main__":
    run_main(main)
