# Every target works as the first command typed in a fresh clone: it makes its own environment in .venv.
#   make test PYTHON=python3.12     another Python than the first one found that is new enough
#   make test ARGS="-k names -x"    arguments for pytest

SHELL = /bin/sh
VENV = .venv
PY = $(VENV)/bin/python
ARGS =
SOAK_SECONDS = 1800

ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$python; break; }; done)
endif
# Its name says with which Python: another PYTHON makes the environment anew.
STAMP = $(VENV)/made-with-$(subst /,_,$(PYTHON))

# With the queues that fsqdo is compared with.
BENCH_VENV = .venv-bench
BENCH_STAMP = $(BENCH_VENV)/made-with-$(subst /,_,$(PYTHON))

.PHONY: help demo test test-cluster lint format bench bench-peers benchmarks soak clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    measure Python's standard library with a queue: one minute"
	@echo "make test    the test suite, but for the tests on real batch systems"
	@echo "make test-cluster    the tests on a real Slurm and a real Grid Engine, as root, where they are installed"
	@echo "make lint    ruff and mypy --strict"
	@echo "make format  let ruff put the code into its form"
	@echo "make bench   the speed, against what the file system and xargs do"
	@echo "make bench-peers    the speed beside other queues, and system calls a task"
	@echo "make benchmarks     both, into docs/benchmarks.md: a quarter of an hour"
	@echo "make soak    stress for SOAK_SECONDS=$(SOAK_SECONDS)"
	@echo "make clean   remove what these made"

demo: $(STAMP)
	@rm -rf build/demo
	@PATH="$$PWD/$(VENV)/bin:$$PATH" sh examples/stdlib_statistics/demo.sh build/demo

test: $(STAMP)
	$(PY) -m pytest --ignore=tests/cluster -n auto $(ARGS)

# Each file of tests with a Slurm or a Grid Engine of its own; they mostly wait, so that three at once suit two processors.
test-cluster: $(STAMP)
	$(PY) -m pytest tests/cluster -n 3 --dist loadfile $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(PY) -m mypy --strict fsqdo

format: $(STAMP)
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

bench: $(STAMP)
	$(PY) -m tests.bench $(ARGS)

bench-peers: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python -m tests.bench_peers $(ARGS)

benchmarks: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python -m tests.benchmarks $(ARGS)

soak: $(STAMP)
	$(PY) -m tests.soak --seconds $(SOAK_SECONDS) $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH_VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BENCH_STAMP): setup.py
	@.ci/environment "$(PYTHON)" $(BENCH_VENV) bench
	@touch $@

$(STAMP): setup.py
	@.ci/environment "$(PYTHON)" $(VENV)
	@touch $@
