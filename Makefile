# Every target prepares what it needs, once: .venv from infra/locks, jars under build/jars. See `make help`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := build/setup.stamp
LOCKS := $(wildcard infra/locks/*.lock)
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test nightly unit up down status doctor lint format docs lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## prepare this checkout (all other targets do it first)

$(READY): $(LOCKS) infra/setup/bootstrap.py $(if $(and $(wildcard $(VENV)/headwater.stamp),$(wildcard build/jars/kafka/.complete)),,force)
	@$(PYTHON) infra/setup/bootstrap.py
	@mkdir -p $(@D) && touch $@

.PHONY: force
force:

demo: $(READY) ## bring everything up, run traffic, train, compare every count with the truth
	@$(RUN) -m infra.cli.app demo $(ARGS)

bench: $(READY) ## all benchmarks, each beside the straightforward way (ARGS='--pairs 5')
	@$(RUN) -m infra.cli.app bench all $(ARGS)

up: $(READY) ## start the local stack and wait until everything answers
	@$(RUN) -m infra.cli.app up $(ARGS)

down: $(READY) ## stop the local stack, data stays (ARGS=--wipe removes it)
	@$(RUN) -m infra.cli.app down $(ARGS)

status: $(READY) ## what runs, where, with how much memory
	@$(RUN) -m infra.cli.app status

doctor: $(READY) ## what is missing or wrong on this machine, and what to do about it
	@$(RUN) -m infra.cli.app doctor

test: $(READY) ## all tests: unit, contract, engines, stack
	@$(RUN) -m pytest tests/unit tests/contract tests/engines tests/stack $(ARGS)

nightly: $(READY) ## the fault tests at length: 20 rounds of each kill, 60 s of each standstill (hours)
	@HEADWATER_FAULT_ROUNDS=20 HEADWATER_FAULT_PAUSE_S=60 $(RUN) -m pytest tests/contract tests/stack $(ARGS)

unit: $(READY) ## the quick tests only: no service, no Java
	@$(RUN) -m pytest tests/unit $(ARGS)

lint: $(READY) ## style and types
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy schemas connectors jobs serving infra

format: $(READY) ## let ruff format and fix what it can
	@$(RUN) -m ruff check --fix . ; $(RUN) -m ruff format .

docs: $(READY) ## rewrite the documents that are made from the code
	@$(RUN) -m infra.docs.reference

lock: $(READY) ## renew all locks from pyproject.toml and infra/setup/artifacts.py (needs mvn)
	@$(VENV)/bin/uv pip compile --python-version 3.11 --extra dev --generate-hashes --no-header --no-annotate \
		--quiet pyproject.toml --output-file infra/locks/requirements.lock
	@$(RUN) -m infra.setup.lock

clean: ## remove the environment and the jars; data of the stack stays (see `make down ARGS=--wipe`)
	@rm -rf $(VENV) build
