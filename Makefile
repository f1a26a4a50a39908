# `make run` and `make test` need Python 3.11 or newer, git and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What was compiled once is kept, whatever the machine says: else every worker and every command compiles everything anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test test-all check demo bench format clean

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mcp-authz needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mcp-authz into $(VENV) ..."
	@$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mcp-authz and what its checks need into $(VENV) ..."
	@$(INSTALL) '.[demo,dev,rego,otel]'
	@touch $(VENV)/.run $@

run: $(VENV)/.run  ## start the gateway with the example configuration in front of two published servers
	@$(BIN)/python -m examples.quickstart

demo: $(VENV)/.run  ## tell the incident of the README with real parts
	@$(BIN)/python -m examples.incident

test: $(VENV)/.dev  ## the tests
	@$(BIN)/pytest --numprocesses 4 --dist worksteal -m "not thorough"

test-all: $(VENV)/.dev  ## every test, also those that show in more variants what others show in one
	@$(BIN)/pytest --numprocesses 4 --dist worksteal

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
