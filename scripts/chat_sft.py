"""Finetune on conversations; only the assistant's tokens count: `python -m scripts.chat_sft --depth 12`.

Starts from the newest checkpoint of the stage before (`--source`), reads `--mixture` (tasks, and JSONL
or Parquet files below `--data-dir`) and writes `sft_RUN/`. The same command resumes a stopped run.
"""

from __future__ import annotations

from nanochat.common import EXIT_DONE, base_dir, resolve, run_main
from nanochat.config import ChatSFT
from nanochat.configurator import parse
from nanochat.run_folder import claim


def main(argv: list[str]) -> int:
    config = parse(ChatSFT, argv, prog="chat_sft", about=__doc__)
    folder = claim("sft", config)
    if folder is None:
        return EXIT_DONE

    from tasks.catalogue import load_mixture

    root = base_dir(config.base_dir)
    items, data_hash = load_mixture(root, resolve(root, config.data_dir), config.mixture)

    from nanochat import stages
    from nanochat.runner import train

    return train(folder, config, lambda world: stages.finetune("sft", config, world, items, data_hash))


if __name__ == "__main__":
    run_main(main)
