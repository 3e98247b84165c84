# make demo: a trained tagger in a few minutes. make test: the tests. make check: all checks.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TAGGER := $(BIN)/tagger

.PHONY: setup demo test check format clean

setup: $(READY)

# uv installs in seconds what pip installs in minutes; TensorFlow starts three times faster when its
# bytecode is compiled, which uv leaves undone unless told.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: setup
	$(TAGGER) demo-corpus demo/corpus
	$(TAGGER) preprocess --config configs/demo.yaml
	$(TAGGER) train --config configs/demo.yaml --resume
	@set -e -o pipefail; clip=$$(ls demo/corpus/f/*.mp3 | head -n 1); \
	echo "$(TAGGER) predict-tags --model demo/run --top-k 6 --taggram demo/taggram.png $$clip"; \
	$(TAGGER) predict-tags --model demo/run --top-k 6 --taggram demo/taggram.png $$clip
	$(TAGGER) evaluate demo/run
	@echo "taggram: demo/taggram.png"

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo
