#!/usr/bin/env bash
# The tests, set-up included: the fast lane (under a minute) without arguments, else what pytest is told.
#
#   bash scripts/run_tests.sh [-m slow] [-k tokenizer] [tests/test_gpt.py] ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Without compiled files each of some fifty processes would compile torch anew: twice the CPU time.
unset PYTHONDONTWRITEBYTECODE
bash env/setup.sh --extras report,serve,bench,slurm,dev
# The fast lane on several processes: half the time on two cores. Other lanes want the cores for themselves.
[ $# -gt 0 ] || set -- --numprocesses auto --maxprocesses 4
exec .venv/bin/python -m pytest "$@"
