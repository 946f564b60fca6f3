# The words of this project: what people, hooks and CI call.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help repro test test-services test-containers lint types format pipelines pipeline-local lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The tasks have nothing in common before the report: both run at once, each on half of the processors. Their lines
# go through a pipe, since two bars on one terminal would overwrite each other. Should one fail, the other still ends,
# and the last run of DVC says why where it is seen: at the end.
repro: .venv/installed  ## Run the whole pipeline on demo data (or what params.yaml names) and show the results
	-@$(MAKE) --no-print-directory --jobs=2 repro-reconstruction repro-segmentation
	dvc repro
	@condswin summary

repro-%: .venv/installed
	@export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$$(python -c 'import os; print(max(os.cpu_count() // 2, 1))')}; \
	dvc --wait-for-lock repro --glob '*$**' 2>&1 | cat

test: .venv/installed  ## Run the fast tests
	pytest -n 2 --dist loadscope

test-services: .venv/installed  ## Run the tests against real PostgreSQL, S3 and MLflow servers on loopback
	pytest -m services tests/services

test-containers: .venv/installed  ## Build the image on a real Docker daemon and run the pipeline in it
	pytest -m containers tests/containers

lint: .venv/installed  ## Check style, and that compiled pipelines are current
	ruff check
	ruff format --check
	python -m pipelines compile --out build/compiled >/dev/null
	diff -r build/compiled pipelines/compiled

types: .venv/installed  ## Check types
	mypy

format: .venv/installed  ## Format the code
	ruff check --fix
	ruff format

pipelines: .venv/installed  ## Compile the Kubeflow pipelines from params.yaml
	python -m pipelines compile

pipeline-local: .venv/installed  ## Run the Kubeflow pipeline in processes of this machine
	python -m pipelines run --local

lock:  ## Resolve pyproject.toml anew and pin every package
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet '.[dev]'
	build/lock/bin/pip freeze --all --exclude condswin --exclude pip | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > requirements.lock

clean:  ## Remove what the pipeline made (the MLflow database stays)
	rm -rf data models checkpoints evaluation comparison promotion report build
