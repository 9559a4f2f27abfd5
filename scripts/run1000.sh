#!/usr/bin/env bash
# A d32 model on one node with 8 GPUs of 80 GB, through every stage to the report. Stop it with Ctrl-C; the same
# command goes on where it was.
#
#   bash scripts/run1000.sh [--dry-run] [--nproc GPUS] [--OPTION VALUE ...]
#
# Options go to `python -m scripts.pipeline`; its --help lists them.
set -euo pipefail
export NANOCHAT_NPROC=${NANOCHAT_NPROC:-8}
exec bash "$(dirname "${BASH_SOURCE[0]}")/../env/python.sh" -m scripts.pipeline --preset run1000 "$@"
