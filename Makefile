# Each target does its own set-up from a fresh clone: a virtual environment in .venv, filled the first time and again
# when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := pyproject.toml constraints.txt
# Stamps: what is installed. The demo needs no test tools, so a newcomer does not wait for them.
USE    := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.PHONY: help demo test lint venv clean
help:
	@echo "make demo    sample photographs, and the objects found in them, from nothing"
	@echo "make test    the whole test suite"
	@echo "make lint    style (ruff) and types (mypy)"
	@echo "make venv    only the set-up for development, in $(VENV)"
	@echo "make clean   remove $(VENV), the demo's pictures and the caches"

demo: $(USE)
	@$(BIN)/detseg samples demo/photos
	@$(BIN)/detseg detect demo/photos --out demo/results --exist-ok
	@echo "Photographs: demo/photos   The same with boxes: demo/results/images"

# Two processes are the best of two cores: each imports torch once and computes in one thread.
test: $(DEV)
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

venv: $(DEV)

clean:
	rm -rf $(VENV) demo build *.egg-info detseg.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(USE): $(PINS) | $(BIN)/python
	$(call install,.)
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	$(call install,.[dev])
	$(call compile,$(VENV)/lib)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "detseg needs Python 3.11 or newer and '$(PYTHON)' is not; name one: make PYTHON=python3.12 demo" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# Unlike pip, uv leaves it to the first import to compile; where PYTHONDONTWRITEBYTECODE is set every process would do
# so anew, which takes longer than most tests. What is no Python 3 (templates, samples) is passed over.
define compile
	@$(BIN)/python -m compileall -qq -j 0 $(1) || true
endef

# uv installs in seconds what takes pip minutes; where uv cannot be had, pip does the same work.
define install
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv || \
	  echo "uv cannot be had; pip installs instead, which takes a few minutes" >&2
	@if $(BIN)/python -m uv --version >/dev/null 2>&1; \
	  then $(BIN)/python -m uv pip install --python $(BIN)/python -c constraints.txt -e '$(1)'; \
	  else $(BIN)/python -m pip install -c constraints.txt -e '$(1)'; fi || { \
	  echo "the installation failed (is there a network?); 'make $(MAKECMDGOALS)' starts it again" >&2; exit 1; }
endef
