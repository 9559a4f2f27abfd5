"""A run's metrics for wandb, made from its metrics.jsonl: `python -m scripts.track --run exp1`.

Works at any time, also beside a run that trains, and needs no network: what it prints sends them later. With
`--online` they are sent at once. Run it on a login node; no job needs wandb.
"""

from __future__ import annotations

from nanochat.common import base_dir, run_main
from nanochat.config import Track
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(Track, argv, prog="track", about=__doc__)

    from nanochat import report, track

    root = base_dir(config.base_dir)
    run = config.run or report.newest_run(root)
    for folder in track.send(root, run, config.project, online=config.online):
        print(folder if config.online else f"wandb sync {folder}")


if __name__ == "__main__":
    run_main(main)
