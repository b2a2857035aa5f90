# Everything that a developer or a first user calls. Needs make and Python 3.11 or newer.
.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt
DISTRIBUTIONS := -e ./sdk -e ./controller_service -e ./agent_service
PROJECTS := sdk/pyproject.toml controller_service/pyproject.toml agent_service/pyproject.toml
# What running needs, and that with the test tools: a stamp each, so that neither is repeated.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
# Arguments for pytest, as in: make test ARGS="tests/unit -k selector"
ARGS ?=
# The compose command, where it is not Docker's own.
COMPOSE ?= docker compose

.PHONY: help setup demo up test test-faults check static bench fmt clean constraints
.PHONY: compose-env compose-up compose-test compose-down

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment ----------------------------------------------------------------------------

$(PY):
	@sh scripts/make_venv.sh $(VENV)

$(RUN): constraints.txt $(PROJECTS) | $(PY)
	@echo "Installing what running needs into $(VENV) ..."
	@$(PIP) $(DISTRIBUTIONS)
	@touch $@

$(DEV): constraints.txt $(PROJECTS) requirements-dev.in | $(PY)
	@echo "Installing everything, test tools included, into $(VENV) ..."
	@$(PIP) $(DISTRIBUTIONS) -r requirements-dev.in
	@touch $(RUN) $@

setup: $(DEV)  ## Make .venv with the three distributions and the test tools.

# --- running --------------------------------------------------------------------------------

demo: $(RUN)  ## Start a controller and an agent, run a command, watch its lines arrive, stop both.
	@$(PY) scripts/demo.py

up: $(RUN)  ## Do what demo does and stay up, with the data in ./run; Ctrl-C stops it.
	@$(PY) scripts/demo.py --stay

# --- checking -------------------------------------------------------------------------------

define CODE_CHECKS
$(BIN)/ruff check .
$(BIN)/ruff format --check .
$(BIN)/mypy
$(BIN)/mypy scripts
$(BIN)/lint-imports
endef

test: $(DEV)  ## Run every test but those of real faults (ARGS="..." goes to pytest).
	@$(PY) -m pytest $(ARGS)

test-faults: $(DEV)  ## Kill, cut, fill and damage real processes; TRIALS=200 for long, SEED=... again.
	@$(PY) -m pytest tests/faults -m "not slow" $(ARGS)

check: $(DEV)  ## Run what a change has to pass: ruff, mypy, lint-imports, unit and contract tests.
	$(CODE_CHECKS)
	$(PY) -m pytest tests/unit tests/contract tests/architecture $(ARGS)

static: $(DEV)  ## Run every check that starts nothing: code, imports, compose file, Dockerfiles.
	$(CODE_CHECKS)
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint controller_service/Dockerfile agent_service/Dockerfile redis_service/Dockerfile

bench: $(DEV)  ## Measure latency and throughput beside asyncssh; table and JSON in bench/results.
	@$(PY) bench/run.py $(ARGS)

fmt: $(DEV)  ## Format the code and mend what ruff can mend by itself.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- containers -----------------------------------------------------------------------------

compose-env:  ## Write .env with random secrets for docker-compose.yml, unless it is there.
	@sh scripts/compose_env.sh .env

compose-up: compose-env  ## Build and start controller, agent and redis in containers.
	@COMPOSE='$(COMPOSE)' sh scripts/compose.sh up -d --build

compose-test: $(RUN)  ## Start the containers apart from yours, run a command through them, remove them.
	@COMPOSE='$(COMPOSE)' $(PY) scripts/compose_test.py

compose-down:  ## Stop the containers; their data stays in its volumes.
	@COMPOSE='$(COMPOSE)' sh scripts/compose.sh down

# --- upkeep ---------------------------------------------------------------------------------

constraints: $(DEV)  ## Choose the versions in constraints.txt anew.
	@$(PY) -m pip --disable-pip-version-check install --quiet uv
	@sh scripts/constraints.sh $(BIN)/uv

clean:  ## Remove .venv and every cache; the data of make up, in ./run, stays.
	rm -rf $(VENV) build dist .coverage htmlcov .mypy_cache .ruff_cache .pytest_cache
	rm -rf .hypothesis .import_linter_cache sdk/*.egg-info controller_service/*.egg-info
	rm -rf agent_service/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
