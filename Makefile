# Three commands for a newcomer: make demo, make test, make check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# tests at a time, each on a core of its own
WORKERS ?= 2
INSTALLED := $(VENV)/.installed

.PHONY: demo demo-compare test fuzz check format lock clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# One environment from the hashed lock; made again whenever the lock changes.
$(INSTALLED): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)  ## draw a phantom, pretrain, fine-tune behind a masker, evaluate: a caries report in minutes
	$(BIN)/python -m mim.data.phantom --output data/phantom
	$(BIN)/python train.py configs/pretrain/demo.yaml
	$(BIN)/python finetune.py configs/finetune/demo.yaml
	$(BIN)/python evaluate.py configs/evaluate/demo.yaml

demo-compare: $(INSTALLED)  ## pretrained against from scratch, same network, same few labels, three seeds
	$(BIN)/python benchmarks/demo_compare.py

test: $(INSTALLED)  ## the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

fuzz: $(INSTALLED)  ## 20,000 broken and hostile files through the worker processes of the preparation (about 20 minutes)
	$(BIN)/python -W ignore tests/fuzz/fuzz_run.py --inputs 20000 --seed 0

check: $(INSTALLED)  ## ruff, mypy, import contracts, coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --cov --cov-fail-under=80

format: $(INSTALLED)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## resolve pyproject.toml again into the two hashed locks (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements.lock
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements-dev.lock

clean:  ## remove the environment and what the demo made
	rm -rf $(VENV) runs/demo runs/demo-pretrain data/phantom
