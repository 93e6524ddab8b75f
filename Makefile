# `make book` and `make test` are all a newcomer needs: each sets up .venv from nothing and does its job.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup book site notebooks replication test check-alone check-browser check-faults release-check lint bench clean lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Exact versions; torch and what depends on it in one command, or pip brings another torch.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(READY)  ## create or refresh the environment

book: $(READY)  ## execute every notebook afresh, then build the book
	@$(BIN)/python book/build.py

site: $(READY)  ## build the book from the executed notebooks as committed
	@$(BIN)/python book/build.py --committed

notebooks: $(READY)  ## maintainers: refresh the committed executed notebooks (real data only)
	@$(BIN)/python tools/refresh_notebooks.py

test: $(READY)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not faults and not browser and not alone and not release" -n 2 --dist loadfile --no-loadscope-reorder

check-browser: $(READY)  ## build the book and open every page in Chromium (minutes; Debian: apt-get install chromium)
	$(BIN)/python -m pytest -m browser tests/test_browser.py

check-faults: $(READY)  ## kill a replication and its workers again and again, and compare what comes out (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults tests/test_faults.py

check-alone: $(READY)  ## run each committed notebook alone, in an empty folder and environment (tens of minutes)
	$(BIN)/python -m pytest -m alone tests/test_alone.py

release-check: $(READY)  ## build sdist and wheel, install the wheel elsewhere, use it (minutes)
	$(BIN)/python -m pytest -m release tests/test_release.py

lint: $(READY)  ## check style, spelling, types and workflow files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

replication: $(READY)  ## maintainers: carry on the stored replication and refresh its tables (hours; real data)
	@$(BIN)/python tools/refresh_replication.py
	@$(BIN)/python tools/refresh_projections.py
	@$(BIN)/python tools/refresh_run_intervals.py

bench: $(READY)  ## measure what is claimed to be fast; writes build/bench.json
	@$(BIN)/python tools/benchmarks/run.py

lock:  ## maintainers: choose exact versions anew
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet '.[dev]' 'setuptools>=77' 'torch==2.13.0' 'torchvision==0.28.0'
	build/lock/bin/python -m pip freeze --all --exclude transferability-companion --exclude pip \
	  | sed -E 's/\+cpu$$//' > requirements.lock

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
