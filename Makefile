# Needs make and Python 3.11 or newer; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINNED := $(VENV)/.pinned
INSTALLED := $(VENV)/.installed
PRODUCT := schemas ingest aggregators billing_export metering examples benchmarks
CHECKERS := .checkers
AUDIT := .audit
FUZZ := .fuzz
FUZZ_SECONDS ?= 300
FUZZ_TARGETS ?= decoders numbers times inflating bodies
CHECKERS_INSTALLED := $(CHECKERS)/.installed
TEST_PROCESSES ?= 3
STRIPE_MOCK := tests/support/stripe_mock
PIP := python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --no-build-isolation
LOCK := --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version

.DEFAULT_GOAL := help
.PHONY: help install checkers demo test faults simulate planted check audit-pins format docs bench bench-short up lock fuzz fuzz-gateway fuzz-bytes clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install the pinned requirements into .venv

# Where it is set, as in many images, every process would compile anew all that it imports: half of what a start takes.
export PYTHONDONTWRITEBYTECODE :=
COMPILED := examples.flights.__main__, ingest.gateway, aggregators.worker, metering.embedded.clickhouse_server

# Each stamp is written last, so a broken install is done again. A change to pyproject.toml alone takes two seconds.
$(PINNED): requirements-build.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, but '$(PYTHON)' is not. Name one that is: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing the pinned requirements into $(VENV): about a minute, and only when they change"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/$(PIP) --require-hashes --requirement requirements-build.txt
	@$(BIN)/$(PIP) --require-hashes --requirement requirements-dev.txt
	@touch $(PINNED)

$(INSTALLED): $(PINNED) pyproject.toml
	@$(BIN)/$(PIP) --editable .
	@$(BIN)/python -m metering.embedded.kafka_training
	@$(BIN)/python -c 'import $(COMPILED)'
	@touch $(INSTALLED)

checkers: $(CHECKERS_INSTALLED) ## install what checks exports, focus-validator and stripe-mock, into .checkers

# The validator asks for Python 3.12 for one line of its own; tests/support/focus_check.py says how 3.11 reads it.
$(CHECKERS_INSTALLED): requirements-build.txt requirements-checkers.txt $(STRIPE_MOCK)/go.mod $(STRIPE_MOCK)/go.sum
	@echo "Installing what checks exports into $(CHECKERS): about a minute, and only when it changes"
	@$(PYTHON) -m venv --clear $(CHECKERS)
	@$(CHECKERS)/bin/$(PIP) --require-hashes --requirement requirements-build.txt
	@$(CHECKERS)/bin/$(PIP) --require-hashes --ignore-requires-python --requirement requirements-checkers.txt
	@cd $(STRIPE_MOCK) && GOFLAGS='-mod=readonly -modcacherw' GOTOOLCHAIN=local GOPATH=$(abspath $(CHECKERS))/gopath \
		$(abspath $(CHECKERS))/bin/go build -o $(abspath $(CHECKERS))/bin/stripe-mock github.com/stripe/stripe-mock
	@touch $(CHECKERS_INSTALLED)

demo: $(INSTALLED) ## a year of real events through the whole pipeline, to verified line items
	$(BIN)/python -m examples.flights

# Much of the suite waits for processes, so three at a time suit two cores; each has engines of its own.
test: $(INSTALLED) $(CHECKERS_INSTALLED) ## the whole test suite, against the embedded engines
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 25

faults: $(INSTALLED) ## every fault with 100,000 events and 20 seeds; takes hours
	FAULTS_EVENTS=100000 FAULTS_SEEDS=20 $(BIN)/pytest --timeout 3600 tests/faults

simulate: $(INSTALLED) ## 20,000 seeded worlds of faults around the pure core
	SIMULATE_SEEDS=20000 SIMULATE_EXAMPLES=2000 $(BIN)/pytest --timeout 7200 tests/simulation

planted: $(INSTALLED) ## plant bugs one at a time; every one must be caught by a test
	$(BIN)/python -m tests.planted.plant

check: $(INSTALLED) ## lint, format, types, import rules and security; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(PRODUCT)

audit-pins: $(INSTALLED) ## ask whether a pinned version has a known hole; needs an index and its advisories
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'
	for pinned in requirements*.txt; do echo $$pinned; \
		$(AUDIT)/bin/pip-audit --requirement $$pinned --require-hashes --disable-pip --strict --progress-spinner off || exit 1; done

format: $(INSTALLED) ## let ruff format the code and mend what it safely can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(INSTALLED) ## write the generated pages of docs/ anew
	$(BIN)/python -m metering.docs

bench: $(INSTALLED) ## how fast everything is, beside what one would use instead
	$(BIN)/python -m benchmarks

bench-short: $(INSTALLED) ## the same with smaller sizes
	$(BIN)/python -m benchmarks --short

up: $(INSTALLED) ## start the embedded stack; Ctrl-C stops it
	$(BIN)/metering up

lock: ## pin the requirements anew (needs uv)
	uv pip compile $(LOCK) 3.11 --extra aws --extra embedded --extra stripe --group build --group demo --group dev --output-file requirements-dev.txt pyproject.toml
	uv pip compile $(LOCK) 3.11 --constraint requirements-dev.txt --output-file requirements.txt pyproject.toml
	uv pip compile $(LOCK) 3.11 --constraint requirements-dev.txt --group build --output-file requirements-build.txt
	uv pip compile $(LOCK) 3.11 --group fuzz --output-file requirements-fuzz.txt
	# The validator holds an older NumPy than its own pyarrow works with; it uses none itself.
	echo 'numpy>=2,<2.5' | uv pip compile $(LOCK) 3.12 --override - --group checkers --output-file requirements-checkers.txt

fuzz: fuzz-gateway fuzz-bytes ## both of the next two

fuzz-gateway: $(INSTALLED) ## ask the gateway 10,000 times what its OpenAPI document allows, and what it does not
	FUZZ_CASES=2500 $(BIN)/pytest tests/ingest/test_gateway_schemathesis.py tests/ingest/test_gateway_fuzz.py --timeout 7200

fuzz-bytes: $(FUZZ)/.installed ## look for bytes that break decoders, numbers, times, inflating and bodies, 5 minutes each
	for target in $(FUZZ_TARGETS); do $(FUZZ)/bin/python -m tests.fuzz.fuzz $$target $(FUZZ_SECONDS) || exit 1; done

$(FUZZ)/.installed: requirements-build.txt requirements.txt requirements-fuzz.txt
	@$(PYTHON) -m venv --clear $(FUZZ)
	@$(FUZZ)/bin/$(PIP) --require-hashes --requirement requirements-build.txt
	@$(FUZZ)/bin/$(PIP) --require-hashes --requirement requirements.txt
	@$(FUZZ)/bin/$(PIP) --require-hashes --requirement requirements-fuzz.txt
	@touch $(FUZZ)/.installed

clean: ## remove what was built and installed; the embedded stack's data in .metering stays
	rm -rf $(VENV) $(CHECKERS) $(AUDIT) $(FUZZ) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
