# What people and CI call. `make` alone lists the targets.
#
#   PYTHON      the Python that the environment is made with, 3.11 or newer
#   CHECKPOINT  checkpoint folder for `demo` and `serve`; the default comes with the repository
#   PORT        port for `serve`
#   WORKERS     processes that `test` and `test-all` share the test files out to; each computes on one thread
#   TINY        folder that `train-tiny` works in, and goes on in when it was cut off
#   SHARE       of the steps and pictures of `train-tiny`, 0..1
#   SEED        of everything in `train-tiny`

PYTHON ?= python3
PORT ?= 8000
WORKERS ?= 2

CHECKPOINT ?= model/pretrained/ebseg-tiny/1
TINY ?= out/tiny
SHARE ?= 1
SEED ?= 0

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo serve test test-all image-check tools check bench train-tiny

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(INSTALLED) ## make the environment in .venv; quick when nothing changed

# A half-made environment has no stamp, so the next call goes on with it.
$(INSTALLED): pyproject.toml client/pyproject.toml Makefile
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -e ./client -e '.[service,training,dev]'
	touch $@

demo: setup ## start the service, segment sample scenes over HTTP, stop the service
	$(BIN)/python samples/demo.py --checkpoint "$(CHECKPOINT)"

serve: setup ## run the service on PORT with CHECKPOINT
	exec $(BIN)/ebseg serve --checkpoint "$(CHECKPOINT)" --port $(PORT)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: setup tools ## run the tests in WORKERS processes, but for those marked slow
	$(PYTEST) -m "not slow"

test-all: setup tools ## run all tests, the slow ones too
	$(PYTEST)

image-check: setup ## build the Dockerfile without an engine and ask it for a mask; root, buildah, debootstrap, 10 minutes
	$(BIN)/python -m tests.deploy.build_image --target cuda

tools: ## install what tests need beside Python, where it is missing: Redis, Chromium, Prometheus
	tests/install_tools.sh

check: setup ## lint, formatting, types, directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_imports.py

bench: setup ## measure model, training and service on this machine; takes minutes
	$(BIN)/ebseg bench engine --variant base --size 640 --classes 150 --dtype float32
	$(BIN)/ebseg bench engine --variant base --size 640 --classes 150 --dtype bfloat16
	$(BIN)/ebseg bench text --classes 150
	$(BIN)/ebseg bench memory --classes 847 --width 4000 --height 3000
	$(BIN)/ebseg bench train --variant base --size 320 --batch 2 --dtype float32
	$(BIN)/ebseg bench service
	$(BIN)/ebseg bench service --instant

train-tiny: setup ## make EBSeg-tiny from nothing: data, CLIP, SAM, segmenter; up to two hours
	$(BIN)/ebseg train-tiny "$(TINY)" --seed $(SEED) --share $(SHARE)
	$(BIN)/ebseg ablate embeddings "$(TINY)/run/checkpoint" "$(TINY)/storybook"
	$(BIN)/ebseg publish "$(TINY)/run" "$(TINY)/registry/ebseg-tiny" --dtype float16
