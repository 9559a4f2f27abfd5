"""Benchmarks: `python -m scripts.bench step|load|generate|exact|tokenize|sandbox|start|serve [--json]`.

One line a figure (a JSON object with --json). Peers run in the same process, alternating; a missing
peer package is exit 1. Figures of other machines (experiments/peers.json) follow on stderr.
"""

from __future__ import annotations

import importlib
import sys

from nanochat.bench import stored
from nanochat.common import EXIT_FAULT, UsageError, run_main
from nanochat.config import Bench
from nanochat.configurator import parse

SUBJECTS = ("step", "load", "generate", "exact", "tokenize", "sandbox", "start", "serve")


def main(argv: list[str]) -> int:
    subject, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    config = parse(Bench, rest, prog="bench", about=__doc__)
    if subject not in SUBJECTS:
        raise UsageError(f"bench {subject or '(nothing)'}: choose one of {', '.join(SUBJECTS)}")
    try:
        for row in importlib.import_module(f"nanochat.bench.{subject}").run(config):
            print(row.json() if config.json else row, flush=True)
        for line in stored(subject):
            print(line, file=sys.stderr)
    except ImportError as error:
        print(f"a peer is missing: {error}; install the extra: pip install '.[bench]'", file=sys.stderr)
        return EXIT_FAULT
    return 0


if __name__ == "__main__":
    run_main(main)
