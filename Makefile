# What people and CI call. `make` alone lists the targets.
#
#   PYTHON      the Python that the environment is made with, 3.11 or newer
#   CHECKPOINT  checkpoint folder for `demo` and `serve`; the default is made here and is untrained
#   PORT        port for `serve`

PYTHON ?= python3
PORT ?= 8000

UNTRAINED := out/registry/ebseg-tiny/1
CHECKPOINT ?= $(UNTRAINED)

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo serve test check bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(INSTALLED) ## make the environment in .venv; quick when nothing changed

# A half-made environment has no stamp, so the next call goes on with it.
$(INSTALLED): pyproject.toml Makefile
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -e '.[service,training,dev]'
	touch $@

# The model's code decides what a checkpoint holds, so a change of it makes a new one.
$(UNTRAINED)/manifest.json: $(INSTALLED) $(wildcard model/*.py)
	rm -rf $(UNTRAINED)
	$(BIN)/ebseg init --variant tiny --seed 0 --out $(UNTRAINED)

NEEDED := $(if $(filter $(UNTRAINED),$(CHECKPOINT)),$(UNTRAINED)/manifest.json)

demo: setup $(NEEDED) ## start the service, segment a photograph over HTTP, stop the service
	$(BIN)/python samples/demo.py --checkpoint "$(CHECKPOINT)"

serve: setup $(NEEDED) ## run the service on PORT with CHECKPOINT
	exec $(BIN)/ebseg serve --checkpoint "$(CHECKPOINT)" --port $(PORT)

test: setup ## run all tests
	$(BIN)/pytest

check: setup ## lint, formatting, types, directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_imports.py

bench: setup ## measure the model on this machine; takes minutes
	$(BIN)/ebseg bench engine --variant base --size 640 --classes 150 --dtype float32
	$(BIN)/ebseg bench engine --variant base --size 640 --classes 150 --dtype bfloat16
	$(BIN)/ebseg bench text --classes 150
	$(BIN)/ebseg bench memory --classes 847 --width 4000 --height 3000
