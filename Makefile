# Needs make and Python 3.11 or newer; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINNED := $(VENV)/.pinned
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --no-build-isolation
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help install demo test check format docs bench up lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install the pinned requirements into .venv

# Each stamp is written last, so a broken install is done again. A change to pyproject.toml alone takes two seconds.
$(PINNED): requirements-build.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, but '$(PYTHON)' is not. Name one that is: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing the pinned requirements into $(VENV): about a minute, and only when they change"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes --requirement requirements-build.txt
	@$(PIP) --require-hashes --requirement requirements-dev.txt
	@touch $(PINNED)

$(INSTALLED): $(PINNED) pyproject.toml
	@$(PIP) --editable .
	@touch $(INSTALLED)

demo: $(INSTALLED) ## a year of real events through the whole pipeline, to verified line items
	$(BIN)/python -m examples.flights

test: $(INSTALLED) ## the whole test suite, against the embedded engines
	$(BIN)/pytest

check: $(INSTALLED) ## lint, format, types and import rules; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(INSTALLED) ## let ruff format the code and mend what it safely can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(INSTALLED) ## write the generated pages of docs/ anew
	$(BIN)/python -m metering.docs

bench: $(INSTALLED) ## how fast the gateway and the worker are, beside a plain Faust agent
	$(BIN)/python -m benchmarks

up: $(INSTALLED) ## start the embedded stack; Ctrl-C stops it
	$(BIN)/metering up

lock: ## pin the requirements anew (needs uv)
	uv pip compile $(LOCK) --extra embedded --group build --group demo --group dev --output-file requirements-dev.txt pyproject.toml
	uv pip compile $(LOCK) --constraint requirements-dev.txt --output-file requirements.txt pyproject.toml
	uv pip compile $(LOCK) --constraint requirements-dev.txt --group build --output-file requirements-build.txt

clean: ## remove what was built and installed; the embedded stack's data in .metering stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
