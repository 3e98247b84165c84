# make demo: a trained tagger in a few minutes. make test: the tests. make check: all checks.
# make campaign: the long tests. make bench: speed and memory, into benchmarks/README.md.
# make audit: what advisories say of the pinned versions.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TAGGER := $(BIN)/tagger
# Folder of the demo: its corpus, store and run; and options and settings for a smaller one, as
# DEMO_CORPUS='--seconds 2' DEMO_SETTINGS='--set train.epochs=2'.
DEMO ?= demo
DEMO_CORPUS ?=
DEMO_SETTINGS ?=
DEMO_ROOTS = --set data.root=$(DEMO)/corpus --set store.root=$(DEMO)/store \
	--set run.root=$(DEMO)/run $(DEMO_SETTINGS)

# What the demo needs of the packages, where not all are there already.
DEMO_READY := $(VENV)/.demo-ready

.PHONY: setup demo test campaign check audit bench format clean

setup: $(READY)

# uv installs in seconds what pip installs in minutes; TensorFlow starts three times faster when its
# bytecode is compiled, which uv leaves undone unless told.
define INSTALL
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--constraint constraints.txt --editable
endef

$(READY): pyproject.toml constraints.txt
	@echo "Installing all extras and what tests need into $(VENV): 3.7 GB, some 1 GB to download."
	$(INSTALL) '.[all,dev]'
	touch $(READY)

$(DEMO_READY): pyproject.toml constraints.txt
	@echo "Installing what training needs into $(VENV): 2.4 GB, some 0.7 GB to download."
	@echo "(Tagging alone needs a twentieth: pip install .)"
	$(INSTALL) '.[train]'
	touch $(DEMO_READY)

demo: $(if $(wildcard $(READY)),$(READY),$(DEMO_READY))
	$(TAGGER) demo-corpus $(DEMO)/corpus $(DEMO_CORPUS)
	$(TAGGER) preprocess --config configs/demo.yaml $(DEMO_ROOTS)
	$(TAGGER) train --config configs/demo.yaml $(DEMO_ROOTS) --resume
	@echo; echo "A clip that training has not heard:"
	@$(TAGGER) tag --model $(DEMO)/run --top-k 6 --taggram $(DEMO)/taggram.png \
		"$$(ls $(DEMO)/corpus/f/*.mp3 | head -n 1)"
	@echo; echo "All test clips:"
	@$(TAGGER) evaluate $(DEMO)/run
	@echo "taggram: $(DEMO)/taggram.png"

# Two processes: what the tests start takes processors of its own. Each takes whole files, so that
# what their tests share is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST)

# The long tests: more kills, faults and mutated inputs, drawn anew each time. The header shows the
# seed that they are drawn from; SEED=that draws the same again.
campaign: setup
	$(PYTEST) --campaign $(if $(SEED),--seed $(SEED))

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(PYTEST)

# Asks the index and its advisories; a version of which nothing is known there fails as well.
audit: setup
	$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit --strict --no-deps --disable-pip \
		--requirement constraints.txt --requirement deploy/gcp/constraints-gpu.txt

# CLIPS: folder of clips in MagnaTagATune's format; without it they are synthesised.
bench: setup
	$(BIN)/python benchmarks/prediction.py --write $(if $(CLIPS),--clips $(CLIPS))
	$(BIN)/python benchmarks/slice.py --write $(if $(CLIPS),--clips $(CLIPS))
	$(BIN)/python benchmarks/stream.py --write
	$(BIN)/python benchmarks/train.py --write
	$(BIN)/python benchmarks/mel_clip.py --write

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(DEMO)
