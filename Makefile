# What people and CI call. `make` alone lists the targets.
#
#   PYTHON      the Python that the environment is made with, 3.11 or newer
#   TORCH       cpu: PyTorch without CUDA, a tenth of the size, where the index that has it can be reached; cuda: with
#               CUDA; auto: what is installed, else without CUDA where there is no NVIDIA driver
#   TORCH_CPU   address of that index
#   INSTALLER   uv or pip; auto: uv, and pip where there is no uv to be had
#   CHECKPOINT  checkpoint folder for `demo` and `serve`; the default comes with the repository
#   MODEL       a model by name for `demo` and `serve` instead, such as base: fetched where it is missing
#   PORT        port for `serve`
#   WORKERS     processes that `test` and `test-all` share the test files out to; each computes on one thread
#   TINY        folder that `train-tiny` works in, and goes on in when it was cut off
#   FAMILIES    folder that `train-families` works in, likewise
#   SHARE       of the steps and pictures of `train-tiny` and `train-families`, 0..1
#   AMOUNTS     options of `ebseg train-tiny` that say how much of each part `train-families` takes
#   SEED        of everything in `train-tiny`
#   UPGRADE     of `lock`: packages to take the newest versions of, or "all"

PYTHON ?= python3
TORCH ?= auto
TORCH_CPU ?=
INSTALLER ?= auto
PORT ?= 8000
WORKERS ?= 2

CHECKPOINT ?= model/pretrained/ebseg-tiny/1
MODEL ?=
TINY ?= out/tiny
FAMILIES ?= out/families
SHARE ?= 1
AMOUNTS ?=
SEED ?= 0
UPGRADE ?=

VENV := .venv
BIN := $(VENV)/bin
# One for each layer of packages; see CONTRIBUTING.md
SERVING := $(VENV)/.serving
TRAINING := $(VENV)/.training
DEVELOPMENT := $(VENV)/.development

# Where it is set, every process would compile all of torch again: some 4 s of processor time each
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo serve test test-all image-check tools check docs bench soak train-tiny train-families lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(DEVELOPMENT) ## make the whole environment in .venv; quick when nothing changed

# A half-made environment has no stamp, so the next call goes on with it. A layer brings those below it.
INSTALL = $(PYTHON) -m requirements.install --torch $(TORCH) --with $(INSTALLER) $(if $(TORCH_CPU),--torch-cpu "$(TORCH_CPU)")
INSTALLED_FROM := pyproject.toml client/pyproject.toml requirements/torch.txt requirements/serving.txt $(wildcard requirements/*.py)

$(SERVING): $(INSTALLED_FROM)
	$(INSTALL) serving
	touch $@

$(TRAINING): $(INSTALLED_FROM) requirements/training.txt
	$(INSTALL) training
	touch $(SERVING) $@

$(DEVELOPMENT): $(INSTALLED_FROM) $(addprefix requirements/,training.txt development.txt moto.txt)
	$(INSTALL) development
	touch $(SERVING) $(TRAINING) $@

# Another TORCH than the one before makes every layer anew
ifeq ($(filter auto cpu cuda,$(TORCH)),)
$(error TORCH is auto, cpu or cuda, not "$(TORCH)")
endif
ifeq ($(filter auto uv pip,$(INSTALLER)),)
$(error INSTALLER is auto, uv or pip, not "$(INSTALLER)")
endif
ifneq ($(TORCH),auto)
$(VENV)/.torch-$(TORCH):
	mkdir -p $(VENV)
	rm -f $(VENV)/.torch-* $(SERVING) $(TRAINING) $(DEVELOPMENT)
	touch $@

$(SERVING) $(TRAINING) $(DEVELOPMENT): $(VENV)/.torch-$(TORCH)
endif

CHOSEN = $(if $(MODEL),--model "$(MODEL)",--checkpoint "$(CHECKPOINT)")
SERVED = $(if $(MODEL),"$(MODEL)",--checkpoint "$(CHECKPOINT)")

demo: $(SERVING) ## start the service, segment sample scenes over HTTP, stop the service
	$(BIN)/python samples/demo.py $(CHOSEN)

serve: $(SERVING) ## run the service on PORT with CHECKPOINT
	exec $(BIN)/ebseg serve $(SERVED) --port $(PORT)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(DEVELOPMENT) tools ## run the tests in WORKERS processes, but for those marked slow
	$(PYTEST) -m "not slow"

test-all: $(DEVELOPMENT) tools ## run all tests, the slow ones too
	$(PYTEST)

image-check: $(DEVELOPMENT) ## build the Dockerfile without an engine and ask it for a mask; root, buildah, debootstrap, 10 minutes
	$(BIN)/python -m tests.deploy.build_image --target cuda

gpu-check: $(TRAINING) ## check all that a GPU has to do on one, in ten minutes; says so where there is none
	$(BIN)/python -m training.gpu_check

tools: $(DEVELOPMENT) ## install what tests need beside Python, where it is missing: Redis, Chromium, Prometheus, Helm, Java
	tests/install_tools.sh

check: $(DEVELOPMENT) ## lint, formatting, types, dead code, directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/pytest -q tests/test_imports.py

docs: $(DEVELOPMENT) ## build the documents as a site in out/site; a link that leads nowhere ends it
	$(BIN)/python docs/build_site.py

bench: $(DEVELOPMENT) ## measure model, training and service on this machine; takes minutes
	$(BIN)/ebseg bench engine --variant base --size 640 --classes 150 --dtype float32
	$(BIN)/ebseg bench engine --variant base --size 640 --classes 150 --dtype bfloat16
	$(BIN)/ebseg bench text --classes 150
	$(BIN)/ebseg bench memory --classes 847 --width 4000 --height 3000
	$(BIN)/ebseg bench train --variant base --size 320 --batch 2 --dtype float32
	$(BIN)/ebseg bench service
	$(BIN)/ebseg bench service --instant

soak: $(DEVELOPMENT) tools ## ten minutes of load with every fault, each answer compared; prints one JSON document
	$(BIN)/python -m tests.load --seconds 600 --clients 64 --chaos --registry-poll-s 1

train-tiny: $(TRAINING) ## make EBSeg-tiny from nothing: data, CLIP, SAM, segmenter; up to two hours
	$(BIN)/ebseg train-tiny "$(TINY)" --seed $(SEED) --share $(SHARE)
	$(BIN)/ebseg ablate embeddings "$(TINY)/run/checkpoint" "$(TINY)/storybook"
	$(BIN)/ebseg publish "$(TINY)/run" "$(TINY)/registry/ebseg-tiny" --dtype float16

TRAINED_WITH_SSC := $(FAMILIES)/ssc/a-last-1/seed
TABLE_OF := "$(TRAINED_WITH_SSC)-0" "$(FAMILIES)/storybook" --also "$(TRAINED_WITH_SSC)-1" "$(TRAINED_WITH_SSC)-2"

train-families: $(TRAINING) ## Tables 3 to 6 on families of classes that are alike, of three trainings each; hours
	$(BIN)/ebseg train-tiny "$(FAMILIES)" --families --share $(SHARE) $(AMOUNTS) --encoders-only
	$(BIN)/ebseg ablate ssc "$(FAMILIES)/run.json" --variants none a-last-1 --out "$(FAMILIES)/ssc"
	$(BIN)/ebseg ablate embeddings $(TABLE_OF)
	$(BIN)/ebseg ablate balance $(TABLE_OF)

lock: ## renew the locks in requirements/ from pyproject.toml; UPGRADE="NAME ..." or all takes newer versions
	$(PYTHON) -m requirements.lock $(if $(filter all,$(UPGRADE)),--upgrade,$(addprefix --upgrade-package ,$(UPGRADE)))
