# Every verb sets up what it needs in its own virtual environment and may be repeated at will.
# Only Python 3.11 or newer and make are needed. `make help` lists the verbs.

VENV        ?= .venv
CONSTRAINTS ?= constraints.txt
OUT         ?= runs/demo
PRESET      ?= standard
BIN         := $(VENV)/bin
PIP_FLAGS   := $(if $(CONSTRAINTS),-c $(CONSTRAINTS),)
CANDIDATES  := $(PYTHON) python3 python python3.14 python3.13 python3.12 python3.11

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all lint types layers format docs figures bench check clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$candidate --version)"; \
	    exec $$candidate -m venv $(VENV); \
	  fi; \
	done; \
	echo "ecgcmr needs Python 3.11 or newer; none of '$(strip $(CANDIDATES))' is. Install one, or: make PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[explain]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[dev]"
	@touch $@ $(VENV)/.installed

setup: $(VENV)/.installed-dev  ## install the package and the developers' tools into .venv

demo: $(VENV)/.installed  ## run the whole job on a simulated cohort and write runs/demo/report.html
	$(BIN)/ecgcmr demo --preset $(PRESET) --out $(OUT)

test: $(VENV)/.installed-dev  ## run the default tests (a few minutes on two cores)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev  ## run the long tests (learning, resuming, physics at n = 500)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

test-all: test test-slow  ## run every test

lint: $(VENV)/.installed-dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev  ## check types
	$(BIN)/mypy

layers: $(VENV)/.installed-dev  ## check that rooms import downward only
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev  ## build the documentation into site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[docs]"
	$(BIN)/mkdocs build --strict

figures: $(VENV)/.installed-dev  ## draw every figure of the docs anew
	$(BIN)/python scripts/draw_all.py

bench: $(VENV)/.installed-dev  ## run the benchmarks and print ratios
	@for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

check: lint types layers test  ## what a pull request must pass

clean:  ## remove the environment and the caches, keep runs/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis site
