"""From a config to a finished, stopped or failed run folder: what every training script does.

What it is: the order of things around the loop: join the ranks, build the stage, train, and turn the outcome
into a marker and an exit code. Under torchrun a stopped rank exits 0 and the marker `STOPPED` speaks for it,
since a rank that exits 75 makes torchrun kill the slower ones. What it is not: the loop (`trainer.py`), the
stages (`stages.py`) or the claim on the folder (`run_folder.py`). Run: `python -m scripts.base_train`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from nanochat import checkpoint_manager, distributed
from nanochat.common import EXIT_DONE, EXIT_STOPPED, print0
from nanochat.config import Training
from nanochat.distributed import World
from nanochat.run_folder import RunFolder, StopFlag
from nanochat.trainer import Stage, Trainer


def train(folder: RunFolder, config: Training, build: Callable[[World], Stage]) -> int:
    """Train a stage in a folder that was claimed for it; returns the exit code."""
    with StopFlag(config.max_minutes, config.deadline) as stop:
        world = distributed.init(config.device)
        try:
            if world.share(folder.is_done()):
                print0(f"{folder.path} is finished; nothing to do (--fresh starts again)")
                return EXIT_DONE
            done = _train(folder, build, world, stop)
        except Exception as error:
            folder.fault(error)
            raise
        finally:
            distributed.close()
    if done:
        print0(f"finished: {folder.path}")
        return EXIT_DONE
    print0(f"stopped cleanly; the same command (without --fresh) resumes in {folder.path}")
    return EXIT_DONE if "TORCHELASTIC_RUN_ID" in os.environ else EXIT_STOPPED


def _train(folder: RunFolder, build: Callable[[World], Stage], world: World, stop: StopFlag) -> bool:
    if world.is_main:
        folder.start()
    stage = build(world)
    if world.is_main:
        checkpoint_manager.check_space(folder.path, stage.model)
    return Trainer(stage, folder, world, stop).run()
