#!/usr/bin/env bash
# From a clone to a chat on a laptop: set-up, then a d4 model through every stage on the embedded world, CPU only.
# It prints what it will take before it starts. Stop it with Ctrl-C; the same command goes on where it was.
#
#   bash scripts/local_cpu_train.sh [--dry-run] [--OPTION VALUE ...]
#
# Options go to `python -m scripts.pipeline`; its --help lists them.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../env/python.sh" -m scripts.pipeline --preset laptop "$@"
