# Each target installs what it needs first. Versions are pinned by name in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: install quickstart test check bench docs build clean

install: $(VENV)/.install

quickstart: install
	$(BIN)/vitreous quickstart

test: $(VENV)/.dev
	scripts/test

check: $(VENV)/.dev
	scripts/check

bench: $(VENV)/.bench
	scripts/bench

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --quiet --site-dir site

build: $(VENV)/.dev
	scripts/build

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vitreous needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.install: $(INPUTS) | $(VENV)/bin/python
	$(PIP) --editable '.[train,serve,export]'
	touch $@

$(VENV)/.dev: $(VENV)/.install
	$(PIP) --editable '.[train,serve,export,dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --editable '.[train,serve,export,dev,bench]'
	touch $@

$(VENV)/.docs: $(VENV)/.install
	$(PIP) --editable '.[train,serve,export,docs]'
	touch $@
