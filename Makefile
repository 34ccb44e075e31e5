# Every target sets up what it needs, in .venv, from the lock files.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Runtime only for `make demo`; runtime and development for the rest.
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test lint unit peers images bench bench-quick parity kills lock docs clean

demo: $(RUNTIME)  ## synthetic patient through listener, worker and sender into an archive
	$(BIN)/pacs-bridge demo --out demo-output

test: peers lint unit  ## everything that CI runs

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

unit: $(DEV)
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile -m "not slow and not gpu"

peers:  ## Orthanc, DCMTK, PostgreSQL: installed where they are missing (Debian, as root)
	tests/peers/install.sh

kills: peers $(DEV)  ## workers killed at random for half an hour, then an archive of 100,000 jobs
	PACS_BRIDGE_KILL_JOBS=5000 $(PYTEST) -o timeout=7200 -s tests/pacs_bridge/queue/test_kills.py
	$(BIN)/python tests/benchmarks/bench_dispatch.py

parity: $(DEV)  ## the published chain against ours, whole volumes
	$(PYTEST) -s -m slow tests/inference/test_parity.py

images: $(DEV)  ## the commands of the Dockerfiles, in a bare environment; downloads all libraries anew
	$(PYTEST) -s -m slow tests/docker

BENCH_OUT ?= build/bench
BENCH_PEERS := build/bench-peers
bench: peers $(DEV)  ## every benchmark against its peers: table, JSON, plot in BENCH_OUT; hours. BENCH="engine whole": these, the others' rows stay
	# later ones want cloudpickle
	test -d $(BENCH_PEERS) || $(BIN)/pip install -q --disable-pip-version-check --no-deps \
	  --target $(BENCH_PEERS) totalsegmentator==2.18.0 joblib==1.4.2 || rm -rf $(BENCH_PEERS)
	$(BIN)/python tests/benchmarks/run.py --out $(BENCH_OUT) $(if $(BENCH),--keep $(BENCH)) \
	  $$(test -d $(BENCH_PEERS) && echo --totalsegmentator $(BENCH_PEERS))

bench-quick: peers $(DEV)  ## that every benchmark runs; its figures say nothing
	$(BIN)/python tests/benchmarks/run.py --quick --out $(BENCH_OUT)-quick

archive: $(DEV)  ## 10,000 series planned by reason; 300 run and killed ten times: minutes
	OMP_NUM_THREADS=1 $(PYTEST) -s -m slow tests/pacs_bridge/archive
	$(BIN)/python tests/benchmarks/bench_archive.py --headers 10000

docs: $(DEV)  ## generated tables
	$(BIN)/python -m dicom_seg.codes > docs/anatomy_codes.md
	$(BIN)/python -m inference.reasons > docs/reason_codes.md

PIP_COMPILE := $(BIN)/pip-compile -q --no-emit-index-url --no-emit-find-links \
  --no-emit-trusted-host --no-emit-options --strip-extras --no-annotate --no-header --allow-unsafe

lock: | $(VENV)/bin/pip  ## resolve anew; review the difference before committing it
	$(BIN)/pip install -q --disable-pip-version-check pip-tools
	$(PIP_COMPILE) -o requirements.lock pyproject.toml
	$(PIP_COMPILE) --extra dev --extra training -c requirements.lock -o requirements-dev.lock pyproject.toml
	sed -i 's/+cpu$$//' requirements.lock requirements-dev.lock  # one lock for every build of torch

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; name another with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }

$(RUNTIME): requirements.lock pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.lock
	touch $@

clean:
	rm -rf $(VENV) demo-output build *.egg-info
