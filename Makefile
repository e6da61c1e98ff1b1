# From a fresh clone: `make run` starts the server, `make test` checks everything.
# Each makes what it needs first: a virtual environment in .venv, and for the tests Chromium.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help run test check unit browser fuzz faults soak audit format bench screenshots clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

run: $(VENV)/.run ## start the server at http://localhost:5000 (ARGS="--port 5001")
	$(BIN)/tornado-logs serve $(ARGS)

test: check unit browser ## formatter, linters, types, and all tests, those in Chromium too

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --ini setup.cfg --recursive

unit: $(VENV)/.test
	@for tool in curl openssl nginx caddy cc; do sh .ci/need $$tool || exit; done
	$(BIN)/pytest --ignore tests/browser --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

browser: $(VENV)/.test
	@sh .ci/need chromium
	$(BIN)/pytest tests/browser --numprocesses auto --maxprocesses 2 --dist loadfile $(ARGS)

fuzz: $(VENV)/.test ## what nobody would send, write or do, in any order; 10 minutes (FUZZ_MINUTES=60)
	@sh .ci/need chromium
	FUZZ_MINUTES=$${FUZZ_MINUTES:-10} $(BIN)/pytest --timeout 0 $(ARGS) \
		tests/test_model.py tests/test_fuzz.py tests/test_fuzz_parsers.py tests/browser/test_fuzz_terminal.py

faults: $(VENV)/.test ## kill the server at 200 random moments under load (KILLS=1000)
	KILLS=$${KILLS:-200} $(BIN)/pytest tests/test_faults.py -k random_moments --timeout 0 -s $(ARGS)

soak: $(VENV)/.test ## an hour of load and faults, then every byte compared (SOAK_MINUTES=10)
	$(BIN)/python tests/soak.py --minutes $${SOAK_MINUTES:-60} $(ARGS)

audit: $(VENV)/.test ## look for known faults in what is installed; takes the network
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet 'pip-audit>=2.7,<3'
	$(BIN)/pip freeze --exclude-editable > $(VENV)/audit/frozen.txt
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audit/frozen.txt

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
