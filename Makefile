# make demo    train, kill the training, and see it go on bit for bit (FRAMEWORK=keras: with Keras)
# make test    format, lint, types, floors and all tests
# make test-oldest  all tests with the oldest versions that are promised, into .venv-oldest
# make soak    the long sweep of kills
# make bench   the timings
# make docs    the site: guides, gallery, API reference, into build/docs
# make wheel   the one file to install from, into dist/
# make screenshots  pictures of panels and cards in a browser, and README's
# make notebooks  run anew those whose code has changed, and save what they show; all their badges
# make format  rewrite the source in the house style
# Everything is installed into .venv; choose an interpreter with PYTHON=python3.12. What tests
# need from Debian is installed where that is allowed; APT= leaves the machine as it is.

VENV := .venv
APT ?= apt-get
FRAMEWORK ?= torch
EXTRA := test
BIN := $(VENV)/bin
# One more than there are cores, since many tests wait, for machines of the double above all; and
# each begins at a place of its own in their row, so that those beside it are of another kind.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n + 1)))
SPREAD := -n $(WORKERS) --dist worksteal
TESTS ?= tests
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test tests test-oldest lint programs soak bench docs wheel screenshots notebooks format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo$(if $(filter keras,$(FRAMEWORK)),-keras)
	$(BIN)/python -m colabkit demo --framework $(FRAMEWORK)

# What lint needs is one core, beside the tests: before them the other ones would be idle.
test: programs
	@$(MAKE) --no-print-directory --jobs=2 lint tests

tests:
	$(BIN)/python -m pytest $(SPREAD) $(TESTS)

test-oldest:
	$(MAKE) VENV=.venv-oldest EXTRA=oldest PYTHON=$(or $(PYTHON),python3.11) programs
	.venv-oldest/bin/python -m pytest $(SPREAD) $(TESTS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: programs
	COLABKIT_SOAK=1 $(BIN)/python -m pytest $(SPREAD) --timeout=0 -m soak $(TESTS)

bench: programs
	@for file in benchmarks/bench_*.py; do \
	  $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

docs: $(VENV)/.test
	$(BIN)/python docs/build_site.py build/docs

wheel: $(VENV)/.made
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

screenshots: programs
	$(BIN)/python -m notebooks.screenshots build/screenshots
	cp build/screenshots/panel-light-wide.png notebooks/images/panel.png

notebooks: programs
	$(BIN)/python -m notebooks.outputs

# Programs that tests call: tests/abilities.py knows them and the packages that bring them.
programs: $(VENV)/.$(EXTRA)
	@missing=$$($(BIN)/python -m tests.abilities) || exit 1; [ -n "$$missing" ] || exit 0; \
	as=$$([ $$(id -u) -eq 0 ] || echo sudo -n); left=$$missing; \
	if command -v "$(APT)" >/dev/null && $$as true 2>/dev/null; then \
	  echo "Installing Debian's $$missing, which tests need."; left=; \
	  $$as $(APT) update -qq >/dev/null 2>&1; \
	  for package in $$missing; do $$as env DEBIAN_FRONTEND=noninteractive $(APT) install -qq -y \
	    --no-install-recommends $$package >/dev/null 2>&1 || left="$$left $$package"; done; fi; \
	[ -z "$$left" ] || echo "Tests need what 'apt-get install $$left' brings; it could not be" \
	  "installed here, and the end of the tests says what goes untested without it." >&2

format: $(VENV)/.test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-oldest build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Each installs the extra of its name.
$(addprefix $(VENV)/.,demo demo-keras test oldest): $(VENV)/.%: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[$*]'
	@touch $@

# The first of these that is Python 3.11 or newer and can make a virtual environment with pip.
$(VENV)/.made:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then echo "Making $(VENV) with $$($$python --version)."; \
	    $$python -m venv --clear $(VENV) && touch $@ && exit 0; rm -rf $(VENV); exit 1; fi; \
	done; \
	echo "No Python of at least 3.11 with venv and ensurepip was found;" \
	  "on Debian run 'apt install python3-venv', or pass PYTHON=/path/to/python3." >&2; exit 1
