# Everything a checkout needs, from nothing: `make repro` builds the environment and runs the pipeline.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
UV := uv==0.13.9

export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := 1

.PHONY: help setup repro test test-all coverage test-deps lint bench table kinds scenes speed results experiments fuzz kill clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## the environment in .venv, again when pyproject.toml or constraints.txt change

repro: setup ## the whole pipeline, as far as something has changed; the report is at the end
	@dvc repro
	@echo
	@cat report/summary.txt
	@echo "Report: $(CURDIR)/report/index.html"

# Tests run in as many processes as there are cores, or WORKERS; tests/conftest.py gives each one thread.
test: setup lint ## checks and the fast tests
	@python -m pytest -n $(or $(WORKERS),auto) -m "not slow"

test-all: setup lint ## checks and all tests
	@python -m pytest -n $(or $(WORKERS),auto)

# Without the test that fills a child's disk, where what is counted could not be written.
coverage: setup ## lines of code that the fast tests do not run
	@python -m pytest -n $(or $(WORKERS),auto) -m "not slow" --cov --cov-report=term-missing -k "not test_no_space"

# By hand: each takes a new environment of 2 GB. The flows' own server is left out, and torch is that of .venv, build and
# all, since its other builds take gigabytes more. Warnings of other releases are shown, and are no errors here.
test-deps: setup ## the tests with the oldest and with the newest dependencies that pyproject.toml allows
	@for which in lowest-direct highest; do \
		echo "Dependencies: $$which"; \
		uv venv --quiet --clear $(VENV)-$$which && \
		links="$${PIP_FIND_LINKS:-$$(pip config get global.find-links 2>/dev/null)}"; \
		if [ -n "$$links" ]; then export UV_FIND_LINKS="$$(echo $$links | tr ' ' ',')"; else torch=--torch-backend=cpu; fi; \
		cert="$${PIP_CERT:-$$(pip config get global.cert 2>/dev/null)}"; \
		if [ -n "$$cert" ]; then export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"; fi; \
		python -m pip freeze | grep '^torch==' >$(VENV)-$$which/torch.txt; \
		VIRTUAL_ENV=$(CURDIR)/$(VENV)-$$which uv pip install --quiet --resolution $$which $$torch \
			-c $(VENV)-$$which/torch.txt -e '.[dev]' -e ./flows && \
		$(VENV)-$$which/bin/python -m pytest -W default -n $(or $(WORKERS),auto) -m "not slow and not server" || exit 1; done

lint: setup ## ruff and mypy
	@ruff check .
	@ruff format --check .
	@mypy

bench: setup ## the evaluation beside other codecs, measured again
	@dvc repro --single-item --force evaluate
	@cat report/summary.txt

table: setup ## every data set, every codec, every bound: models, benchmarks/results/table.json; an hour and a half from nothing
	@python -m benchmarks.speedy
	@OMP_NUM_THREADS=1 python -W ignore -m benchmarks.table --train

kinds: setup ## images, speech and volumes beside their own codecs: models, kinds/*.html; a quarter of an hour
	@dvc repro kinds/dvc.yaml
	@python -m benchmarks.results

scenes: setup ## posed views of furniture as radiance fields, benchmarks/results/scenes.json; half an hour
	@OMP_NUM_THREADS=1 python -W ignore -m benchmarks.scenes

speed: setup ## how fast we are beside SZ3 and SPERR, benchmarks/results/speed.json
	@OMP_NUM_THREADS=1 python -W ignore -m benchmarks.speed

results: setup ## docs/results.md, its picture and the README's table, from the committed results
	@python -m benchmarks.results

experiments: setup ## those of the source papers, PROFILE=cpu KIND=climate: benchmarks/results/experiments; two hours, goes on where it stopped
	@for name in learning sizes masks rate $(if $(filter-out climate,$(KIND)),,ablation); do \
		python -m flows.experiment $$name --profile $(or $(PROFILE),cpu) --kind $(or $(KIND),climate) || exit 1; done
	@echo "Page: $(CURDIR)/benchmarks/results/experiments/index.html"

fuzz: setup ## the decoders against mutated archives, SECONDS=60
	@OMP_NUM_THREADS=1 python -m tests.faults.fuzz $(or $(SECONDS),60)

kill: setup ## bulk compression, killed at random moments, KILLS=200
	@OMP_NUM_THREADS=1 python -m tests.faults.kill $(or $(KILLS),200)

clean: ## remove the environment and caches; data, models and results stay
	rm -rf $(VENV) $(VENV)-* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

# uv is quick but does not read pip's settings, so those for local wheels and certificates are handed to it. With no
# local wheels it takes PyTorch's CPU build. Where uv cannot be had, or fails, pip does it all.
$(VENV)/.installed: pyproject.toml flows/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d; name one: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@pip() { $(BIN)/python -m pip "$$@"; }; \
	links="$${PIP_FIND_LINKS:-$$(pip config get global.find-links 2>/dev/null)}"; \
	cert="$${PIP_CERT:-$$(pip config get global.cert 2>/dev/null)}"; \
	if [ -n "$$links" ]; then export UV_FIND_LINKS="$$(echo $$links | tr ' ' ',')"; else torch=--torch-backend=cpu; fi; \
	if [ -n "$$cert" ]; then export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"; fi; \
	echo "Installing into $(VENV); the first time takes a minute or more"; \
	{ pip install --quiet $(UV) && VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --compile-bytecode $$torch \
		-e '.[dev]' -e ./flows -c constraints.txt; } || pip install -e '.[dev]' -e ./flows -c constraints.txt
	@vcinr warm-up
	@touch $@
