"""A whole run in one command: `python -m scripts.pipeline --preset laptop [--dry-run]`.

Walks the steps of the preset, each in its own process; run it again and it goes on where it stopped.
On a terminal it ends in the chat.
"""

from __future__ import annotations

import os
import sys

from nanochat import pipeline
from nanochat.common import EXIT_DONE, EXIT_STOPPED, run_main
from nanochat.config import Pipeline
from nanochat.configurator import parse


def main(argv: list[str]) -> int:
    config = parse(Pipeline, argv, prog="pipeline", about=__doc__)
    print(pipeline.describe(config), flush=True)
    if config.dry_run:
        return EXIT_DONE
    code = pipeline.execute(config)
    if code == EXIT_STOPPED:
        print("stopped; the same command goes on from here")
    if code != EXIT_DONE:
        return code
    chat = pipeline.Step("chat", "chat_cli", ("--source", "rl" if config.rl else "sft"))
    if config.chat and sys.stdin.isatty() and sys.stdout.isatty():
        os.execv(sys.executable, chat.command(config))
    print(f"\nTalk to it: {pipeline.shown(chat, config)}")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
