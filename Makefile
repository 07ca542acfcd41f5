# Every target sets up what it needs; the second time is quick.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help run test test-fast lint format bench screenshots looks guide engines clean

help:  ## Say what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.venv/ready: pyproject.toml supervisor.conf scripts/venv.sh
	@bash scripts/venv.sh "$(PYTHON)"
	@touch .venv/ready

run: .venv/ready  ## Start the daemon and open the terminal (without a terminal: ask the guide one question)
	@if [ -t 0 ] && [ -t 1 ]; then exec $(BIN)/footplate; else exec bash scripts/demo.sh; fi

engines: .venv/ready  ## Install the real runtimes that tests use (llama-server, vLLM for the CPU, Ray) in .cache/
	@$(BIN)/python scripts/engines.py

test: .venv/ready engines  ## Run every test, against every real runtime
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: .venv/ready  ## Run the tests that need no torch
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not vllm and not torch and not ray"

lint: .venv/ready  ## Check style, types and the direction of imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv/ready  ## Mend what the formatter and the linter can mend
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: .venv/ready  ## Measure what the README claims
	@$(BIN)/python -m bench

screenshots: .venv/ready  ## Take the pictures in docs/pictures/ (needs the fonts of fonts-dejavu-core)
	@$(BIN)/python -m scripts.screenshots

looks: .venv/ready  ## Write down anew how the screens look, which tests hold them to
	@$(BIN)/python -m scripts.looks

guide:  ## Train the built-in model anew from guide/questions.toml (minutes of CPU)
	@bash guide/make.sh

clean:  ## Remove everything that was made here
	rm -rf .venv .cache build dist
