# Set PYTHON=python3.12 (or any Python from 3.11 on) to choose the interpreter of the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 5000
MLRUNS ?= mlruns
export MLRUNS

# Without bytecode every process compiles all that it imports, and tests start hundreds of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install env-mace env-sevennet env-so3lr run test lint format docs ui clean

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## create .venv and install everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true  # on all cores; some packages bring files for other Pythons
	@touch $@

# Packages of force fields have requirements that conflict, so each has an environment of its own.
env-mace: .venv-mace/.installed  ## make .venv-mace, an environment with model=mace

env-sevennet: .venv-sevennet/.installed  ## make .venv-sevennet, an environment with model=sevennet

env-so3lr: .venv-so3lr/.installed  ## make .venv-so3lr, an environment with model=so3lr

.venv-%/.installed: environments/%.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
		--constraint constraints.txt --constraint environments/$*.txt --editable '.[$*]' pytest hypothesis
	@touch $@

run: install  ## the quickstart: a real sweep, its table, and where report and MLflow UI are
	$(BIN)/mlff-exp experiment=quickstart $(ARGS)

# No threads, and no pool of processes for Inductor: they would disturb timings. A worker waits for a quarter of its time.
test: install  ## the whole test suite, on two cores
	OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadgroup --durations=25 $(ARGS)

lint: install  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## write docs/metrics.md anew, from the registry of metrics
	$(BIN)/python -m mlff_exp.results.metrics_page > docs/metrics.md

format: install  ## apply ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# For one reader of what is there: neither four workers nor processes for jobs, each of which imports MLflow for seconds.
ui: install  ## the MLflow UI on what mlruns/ holds, at http://127.0.0.1:5000 (PORT=…, MLRUNS=…)
	@echo "the headline metrics: http://127.0.0.1:$(PORT)/#/experiments/1/runs?viewStateShareKey=headline"
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		$(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri "$$($(BIN)/python -c 'import os; from mlff_exp.tracking.address import store_url; print(store_url(os.environ["MLRUNS"]))')"

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) .venv-mace .venv-sevennet .venv-so3lr .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
