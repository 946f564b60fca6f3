# The words of this project: what people, hooks and CI call.
# Not make's default shell: with that one, macOS's make finds programs on the PATH it was started with, not on ours.
SHELL := bash
IS_OURS := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
# The first that is Python 3.11, or what `make PYTHON=...` names.
PYTHON ?= $(firstword $(foreach python,python3.11 python3,$(shell $(python) $(IS_OURS) 2>/dev/null && echo $(python))) python3)
# GB that installing takes with torch's CUDA build: the environment, the downloads, and pip's cache of them.
DISK ?= 13
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help repro test test-services test-containers test-browser chaos lint types format pipelines pipeline-local image pin lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/python:
	@$(PYTHON) $(IS_OURS) 2>/dev/null || \
	  { echo "Python 3.11 is needed: apt install python3.11 python3.11-venv, or make PYTHON=/path/to/it"; false; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks its module venv: apt install python3.11-venv"; false; }
	@free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1000000)}'); [ $$free -ge $(DISK) ] || \
	  { echo "Installing needs $(DISK) GB and $$free are free here: make room, or see README.md for a smaller one"; false; }
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python $(IS_OURS) || { echo ".venv is of another Python than 3.11: remove it"; false; }
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The tasks have nothing in common before the registry: both run at once, each on half of the processors. Their lines
# go through a pipe, since two bars on one terminal would overwrite each other. Should one fail, the other still ends,
# and the last run of DVC says why where it is seen: at the end.
repro: .venv/installed  ## Run the pipeline on demo data (or what params.yaml names), or TASK=... alone, and show the results
	@tasks=$$(condswin params tasks $(TASK)) || exit 1; \
	$(MAKE) --no-print-directory --jobs=2 $$(printf "repro-%s " $$tasks) || true
	$(if $(TASK),dvc repro --glob '*$(TASK)*' && dvc repro --single-item code-report report,dvc repro)
	@condswin summary

repro-%: .venv/installed
	@export OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$$(python -c 'import os; print(max(os.cpu_count() // 2, 1))')}; \
	set -o pipefail; dvc --wait-for-lock repro compare-$*@$* 2>&1 | cat

test: .venv/installed  ## Run the fast tests
	pytest -n 2 --dist loadscope

test-services: .venv/installed  ## Run the tests against real PostgreSQL, S3 and MLflow servers on loopback
	pytest -m services tests/services

test-containers: .venv/installed  ## Build the image on a real Docker daemon and run the pipeline in it
	pytest -m containers tests/containers

test-browser: .venv/installed  ## Open the report in Debian's Chromium: what it shows, does and asks for
	pytest -m browser tests/browser

chaos: .venv/installed  ## Kill trainings, damage their checkpoints and fill their disk, CHAOS times each (20)
	pytest -m chaos tests/chaos

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
	python -m pipelines run --local $(if $(TASK),--task $(TASK))

image: .venv/installed  ## Build the image TARGET (cpu, gpu); with PUSH=REGISTRY/NAME push it and note its digest
	python -m pipelines image --target $(or $(TARGET),cpu) $(if $(PUSH),--push $(PUSH)) $(BUILD_ARGS:%=--build-arg %)

pin: .venv/installed  ## Note the digest that another image has today: NAME=postgres FROM=docker.io/library/postgres:17
	python -m pipelines pin $(NAME) $(FROM)

lock:  ## Resolve pyproject.toml anew and pin every package
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet '.[dev]'
	set -o pipefail; build/lock/bin/pip freeze --all --exclude condswin --exclude pip | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > build/lock/requirements.lock
	mv build/lock/requirements.lock requirements.lock

define CLEAN
from pathlib import Path
from dvc.repo import Repo
from condswin.outputs import remove_output
for out in Repo().index.outs:
    if Path(out.fs_path).exists():
        print("removed" if remove_output(Path(out.fs_path)) else "kept, since others wrote there:", out.def_path)
endef
export CLEAN

clean: .venv/installed  ## Remove what the pipeline's steps recorded as theirs; checkpoints, caches and MLflow's database stay
	@python -c "$$CLEAN"
	rm -rf build
