"""The programs under short names: `nanochat APP ...`, or `python -m scripts APP ...` in the clone.

    prepare   fetch every file that a run reads                    (scripts.download_data)
    train     a whole run: data, tokenizer, stages, exams, report  (scripts.pipeline)
    eval      exams of a trained model                             (scripts.chat_eval)
    chat      talk to it on the terminal                           (scripts.chat_cli)
    serve     serve it to browsers and programs                    (scripts.chat_web)
    info      what is here, and what is amiss; --self-test         (scripts.info)

Every other program of `scripts/` runs under its own name: `nanochat base_train --depth 12`. Each has --help.
NANOCHAT_OFFLINE=1 keeps it from the network.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import sys
from pathlib import Path

from nanochat import offline
from nanochat.common import EXIT_DONE, UsageError, run_main

APPS = {
    "prepare": "download_data", "train": "pipeline", "eval": "chat_eval", "chat": "chat_cli",
    "serve": "chat_web", "info": "info",
}  # fmt: skip


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        return EXIT_DONE
    name = APPS.get(argv[0], argv[0])
    if not re.fullmatch(r"[a-z]\w*", name) or importlib.util.find_spec(f"scripts.{name}") is None:
        others = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
        raise UsageError(f"unknown app {argv[0]!r}; apps are {', '.join(APPS)}, and {', '.join(others)}")
    if os.environ.get("NANOCHAT_OFFLINE") == "1":
        offline.main([f"scripts.{name}", *argv[1:]])
    sys.argv[1:] = argv[1:]
    runpy.run_module(f"scripts.{name}", run_name="__main__", alter_sys=True)
    return EXIT_DONE


def console() -> None:
    run_main(main)


if __name__ == "__main__":
    console()
