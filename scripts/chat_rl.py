"""Reinforcement learning on problems with checked answers: `python -m scripts.chat_rl --preset laptop`.

Starts from the newest checkpoint of `--source`, lets the model write replies to `--problems` (JSONL or
Parquet files below `--data-dir`, with `messages` and `result`), rewards the right ones and writes `rl_RUN/`.
The same command resumes a stopped run.
"""

from __future__ import annotations

from nanochat.common import EXIT_DONE, base_dir, resolve, run_main
from nanochat.config_rl import ChatRL
from nanochat.configurator import parse
from nanochat.run_folder import claim


def main(argv: list[str]) -> int:
    config = parse(ChatRL, argv, prog="chat_rl", about=__doc__)
    folder = claim("rl", config)
    if folder is None:
        return EXIT_DONE

    from tasks.catalogue import load_problems

    root = base_dir(config.base_dir)
    task = load_problems(root, resolve(root, config.data_dir), config.problems)

    from nanochat import stages
    from nanochat.runner import train

    return train(folder, config, lambda world: stages.rl(config, world, task, task.fingerprint))


if __name__ == "__main__":
    run_main(main)
