# From a fresh clone: `make run` starts the server, `make test` checks everything.
# Each makes what it needs first: a virtual environment in .venv, and for the tests Chromium.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help run test check unit browser format bench screenshots clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

run: $(VENV)/.run ## start the server at http://localhost:5000 (ARGS="--port 5001")
	$(BIN)/tornado-logs serve $(ARGS)

test: check unit browser ## formatter, linter, types, and all tests, those in Chromium too

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: $(VENV)/.test
	@sh .ci/need curl
	$(BIN)/pytest --ignore tests/browser $(ARGS)

browser: $(VENV)/.test
	@sh .ci/need chromium
	$(BIN)/pytest tests/browser $(ARGS)

format: $(VENV)/.test ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test ## measure everything; 20 minutes (ARGS="--quick", ARGS="latency mixed")
	@sh .ci/need cc
	@sh .ci/need chromium
	$(BIN)/pip install --quiet --editable '.[bench,test]'
	$(BIN)/python -m benchmarks $(ARGS)

screenshots: $(VENV)/.test ## take the pictures in docs/screenshots/ anew
	@sh .ci/need chromium
	$(BIN)/python tests/browser/screenshots.py

clean: ## remove what the commands above have made; data/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.run: setup.cfg pyproject.toml .ci/need
	@sh .ci/need venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@
