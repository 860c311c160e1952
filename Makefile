# make demo    train, kill the training, and see it go on bit for bit
# make test    format, lint, types, floors and all tests
# make soak    the long sweep of kills
# make bench   the timings
# make docs    the API reference, into build/docs
# make wheel   the one file to install from, into dist/
# make screenshots  pictures of panels and cards in a browser, and README's
# make format  rewrite the source in the house style
# Everything is installed into .venv; choose an interpreter with PYTHON=python3.12.

VENV := .venv
BIN := $(VENV)/bin
# At least two workers, so that tests which share anything are found out.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -ge 2 ] && echo $$n || echo 2)
TESTS ?= tests
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint fuse soak bench docs wheel screenshots format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/python -m colabkit demo

test: lint fuse
	$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.test fuse
	COLABKIT_SOAK=1 $(BIN)/python -m pytest -n $(WORKERS) --timeout=0 -m soak $(TESTS)

bench: $(VENV)/.test fuse
	@for file in benchmarks/bench_*.py; do \
	  $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

docs: $(VENV)/.test
	$(BIN)/pdoc --docformat google --output-directory build/docs colabkit

wheel: $(VENV)/.made
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

screenshots: $(VENV)/.test fuse
	$(BIN)/python -m notebooks.screenshots build/screenshots
	cp build/screenshots/panel-light-wide.png notebooks/images/panel.png

# The Colab double's Drive is a FUSE file system: installed where it is missing and we may.
fuse:
	@! command -v apt-get >/dev/null || for need in fusermount3:fuse3 rclone:rclone; do \
	  package=$${need#*:}; command -v $${need%:*} >/dev/null || { \
	  as=$$([ $$(id -u) -eq 0 ] || echo sudo -n); \
	  $$as apt-get install -qq -y $$package || { $$as apt-get update -qq \
	    && $$as apt-get install -qq -y $$package; }; } >/dev/null 2>&1 \
	  || echo "$$package could not be installed: tests that need it are skipped." >&2; done

format: $(VENV)/.test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.demo

# The first of these that is Python 3.11 or newer and can make a virtual environment with pip.
$(VENV)/.made:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then echo "Making $(VENV) with $$($$python --version)."; \
	    $$python -m venv --clear $(VENV) && touch $@ && exit 0; rm -rf $(VENV); exit 1; fi; \
	done; \
	echo "No Python of at least 3.11 with venv and ensurepip was found;" \
	  "on Debian run 'apt install python3-venv', or pass PYTHON=/path/to/python3." >&2; exit 1
