# `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup train test test-all lint format locks ci clean
PYTHON := .venv/bin/python

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup:  ## make .venv with the locked packages and rustbpe
	bash env/setup.sh --extras report,serve,bench,slurm,dev

train:  ## the laptop run: set-up, all stages, report, chat
	bash scripts/local_cpu_train.sh

test:  ## the fast tests, under a minute
	bash scripts/run_tests.sh

test-all:  ## the fast, the slow and the distributed tests
	bash scripts/run_tests.sh -m "not gpu and not slurm and not container and not browser and not net"

lint: setup  ## ruff, mypy, clippy
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy
	cargo clippy --manifest-path rustbpe/Cargo.toml --all-targets -- -D warnings

format: setup  ## ruff and cargo fmt, in place
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
	cargo fmt --manifest-path rustbpe/Cargo.toml

locks: setup  ## make env/locks/*.txt again from pyproject.toml
	$(PYTHON) env/compile_locks.py

ci:  ## what a change must pass, on this clone
	bash .ci/run

clean:  ## remove the environment and every cache; never a run
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache rustbpe/target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
