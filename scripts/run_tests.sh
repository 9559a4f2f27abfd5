#!/usr/bin/env bash
# The tests, set-up included: the fast lane (under a minute) without arguments, else what pytest is told.
#
#   bash scripts/run_tests.sh [-m slow] [-k tokenizer] [tests/test_gpt.py] ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Without compiled files each of some fifty processes would compile torch anew: twice the CPU time.
unset PYTHONDONTWRITEBYTECODE
bash env/setup.sh --extras report,bench,slurm,dev
exec .venv/bin/python -m pytest "$@"
