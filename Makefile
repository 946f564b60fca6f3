# The words of this project: what people, hooks and CI call.
# Not make's default shell: with that one, macOS's make finds programs on the PATH it was started with, not on ours.
SHELL := bash
IS_OURS := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
# The first that is Python 3.11, or what `make PYTHON=...` names.
PYTHON ?= $(firstword $(foreach python,python3.11 python3,$(shell $(python) $(IS_OURS) 2>/dev/null && echo $(python))) python3)
# Which build of torch: `cpu`, `cuda`, or neither for what suits: see INSTALL.
TORCH ?=
DRIVER ?= $(shell { [ -e /proc/driver/nvidia/version ] || nvidia-smi >/dev/null 2>&1; } && echo yes)
LOCKED := $(shell sed -n 's/^torch==//p' requirements.lock)
# GB that installing takes with torch's builds: the environment, the downloads, and pip's cache of them.
DISK_cpu := 5
DISK_cuda := 14
export KUBE_BINARIES ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/condswin-test/kube
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help repro test test-pipeline test-services test-containers test-browser test-kube kube-binaries chaos docs lint types format pipelines pipeline-local image pin lock niivue clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

ROOM = free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1000000)}'); [ $$free -ge $(1) ] || \
  { echo "Installing needs $(1) GB and $$free are free here: make room, or see README.md for a smaller one"; exit 1; }

# The lock's torch is either build. Without a driver the CPU's is enough, where the indexes that pip asks have it.
define INSTALL
set -e
pip() { $(BIN)/pip install --quiet --disable-pip-version-check "$$@"; }
has_cpu() { pip --dry-run --no-deps --ignore-installed "torch==$(LOCKED)+cpu" >/dev/null 2>&1; }
case "$(TORCH)" in
  cpu) build=cpu; has_cpu || { echo "TORCH=cpu: no index that pip asks has torch $(LOCKED)+cpu: set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds"; exit 1; } ;;
  cuda) build=cuda ;;
  "") if [ -n "$(DRIVER)" ]; then build=cuda; why="an NVIDIA driver is here"
      elif has_cpu; then build=cpu; why="no NVIDIA driver is here"
      else build=cuda; why="no index that pip asks has the CPU build"; fi
      echo "torch $(LOCKED), $$build build: $$why (README.md says how to choose)" ;;
  *) echo "TORCH=$(TORCH): say cpu or cuda"; exit 1 ;;
esac
case $$build in
  cpu) torch="torch==$(LOCKED)+cpu" ;;
  cuda) torch="torch==$(LOCKED),!=$(LOCKED)+cpu"; $(call ROOM,$(or $(DISK),$(DISK_cuda))) ;;
esac
pip -r requirements.lock "$$torch"
pip --no-deps --no-build-isolation -e .
endef

$(BIN)/python:
	@$(PYTHON) $(IS_OURS) 2>/dev/null || \
	  { echo "Python 3.11 is needed: apt install python3.11 python3.11-venv, or make PYTHON=/path/to/it"; false; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks its module venv: apt install python3.11-venv"; false; }
	@$(call ROOM,$(or $(DISK),$(DISK_$(or $(TORCH),cpu))))
	$(PYTHON) -m venv .venv

.venv/installed: export SCRIPT = $(INSTALL)
.venv/installed: requirements.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python $(IS_OURS) || { echo ".venv is of another Python than 3.11: remove it"; false; }
	@bash -c "$$SCRIPT"
	@touch $@

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

test-pipeline: .venv/installed  ## Run the whole pipeline by DVC, by Kubeflow's local runner, with a third task, and after edits of code
	pytest -n 2 --dist loadscope -m pipeline

test-services: .venv/installed  ## Run the tests against real PostgreSQL, S3 and MLflow servers on loopback
	pytest -n 2 --dist loadscope -m services tests/services

test-containers: .venv/installed  ## Build the image on a real Docker daemon and run the pipeline in it
	pytest -m containers tests/containers

test-browser: .venv/installed  ## Open the report and the documentation in Debian's Chromium: what they show, do and ask for
	pytest -m browser tests/browser

test-kube: .venv/installed  ## Apply the manifests to a real Kubernetes API server, with RBAC, quotas and the scheduler
	pytest -m kube tests/kube

kube-binaries:  ## Build that server from Debian's source, once per machine, in KUBE_BINARIES
	tests/kube/build.sh "$(KUBE_BINARIES)"

chaos: .venv/installed  ## Kill trainings, damage their checkpoints and fill their disk, CHAOS times each (20)
	pytest -n 2 --dist loadscope -m chaos tests/chaos tests/pipelines/test_train_nodes.py

docs: .venv/installed  ## Build the documentation as pages that open from disk, in build/docs; a broken link is an error
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict

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

# Without zarrita, which reads Zarr from servers and is two thirds of it.
niivue:  ## Bundle condswin/reporting/niivue.min.js anew, with npm
	rm -rf build/niivue && mkdir -p build/niivue
	cd build/niivue && npm init -y >/dev/null && npm install --silent @niivue/niivue@0.69.0 esbuild@0.28.2
	cd build/niivue && echo 'export { Niivue, NVImage, SLICE_TYPE } from "@niivue/niivue";' > in.js && \
	  echo 'export const FetchStore = 0, open = 0, get = 0, root = 0, registry = 0, slice = 0;' > none.js && \
	  npx esbuild in.js --bundle --minify --format=iife --global-name=niivue --alias:zarrita=./none.js --legal-comments=none \
	    --outfile=$(CURDIR)/condswin/reporting/niivue.min.js

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
