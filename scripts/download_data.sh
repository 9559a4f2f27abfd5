#!/usr/bin/env bash
# Every file that a run reads, brought by a node with network. Stop it with Ctrl-C; the same command goes on where
# it was.
#
#   bash scripts/download_data.sh [--preset speedrun] [--dry-run] [--OPTION VALUE ...]
#
# Options go to `python -m scripts.download_data`; its --help lists them.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../env/python.sh" -m scripts.download_data "$@"
