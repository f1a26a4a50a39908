# `make run` and `make test` need Python 3.11 or newer, git and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-all check demo bench format clean

$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mcp-authz needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing mcp-authz into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev,rego,otel]'
	@touch $@

run: $(VENV)/.run  ## start the gateway with the example configuration in front of two published servers
	@$(BIN)/python -m examples.quickstart

demo: $(VENV)/.run  ## tell the incident of the README with real parts
	@$(BIN)/python -m examples.incident

test: $(VENV)/.dev  ## the tests; about a quarter of an hour on two cores
	@$(BIN)/pytest --numprocesses 3 --dist worksteal -m "not thorough"

test-all: $(VENV)/.dev  ## every test, also those that show in more variants what others show in one
	@$(BIN)/pytest --numprocesses 3 --dist worksteal

check: $(VENV)/.dev  ## lint, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.dev  ## the governed call against what it is compared to
	@$(BIN)/python -m bench

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .run
