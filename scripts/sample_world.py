"""Write the embedded world, offline, from a seed: `python -m scripts.sample_world --megabytes 20`.

Pretraining shards, conversations for mid-training and SFT, problems for RL, and exams, in `--data-dir`. A
second run with the same options finds them and does nothing.
"""

from __future__ import annotations

from nanochat.common import base_dir, print0, resolve, run_main
from nanochat.config import SampleWorld
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(SampleWorld, argv, prog="sample_world", about=__doc__)

    from nanochat.sample_world import write_world
    from nanochat.world.problems import write_problems

    folder = resolve(base_dir(config.base_dir), config.data_dir)
    summary = write_world(folder, config.world_seed, config.megabytes, config.mid_items, config.sft_items)
    print0(
        f"{folder}: "
        + ", ".join(f"{name} {value}" for name, value in summary.items() if not isinstance(value, dict))
    )
    problems = write_problems(folder, config.world_seed)
    print0("problems: " + ", ".join(f"{name} {count}" for name, count in problems.items()))


if __name__ == "__main__":
    run_main(main)
