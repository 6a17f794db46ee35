# Verbs for people and CI. Everything is installed into $(VENV) by scripts/bootstrap.py.
#   PYTHON=<path>      the interpreter (3.11 or newer)      VENV=<folder>  instead of .venv
#   MODEL=<id|folder>  for `make demo` and `make bench`     TESTS=<path>   what `make test` runs
#   FAMILY=<name> HEAD=<name>, CHECKPOINT=<name>  what `make models` measures, not everything
#   TORCH_INDEX=<url>, ALLOW_CUDA=1  which build of torch to install (scripts/bootstrap.py)

VENV ?= .venv
TESTS ?= tests
JOBS ?= 2
MODEL ?=

# The first Python on the path that is new enough; empty when there is none.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif

RUN := $(VENV)/bin/python
BOOTSTRAP = $(PYTHON) scripts/bootstrap.py --venv "$(VENV)" --extras

.DEFAULT_GOAL := help
.PHONY: help gpu-check demo test test-slow clients models check format bench clean distclean install install-dev install-engines python

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@sed -n 's/^#   /  /p' $(firstword $(MAKEFILE_LIST))

demo: install  ## compile a model and search the demo's passages with it
	@$(RUN) examples/demo/demo.py $(if $(MODEL),--model "$(MODEL)")

test: install-dev  ## the whole suite but the slow tests
	@echo "==> pytest: $(TESTS), all but slow"
	@$(RUN) -m pytest -n $(JOBS) -m "not slow" $(TESTS)

test-slow: install-engines  ## the slow tests: fresh environments, the oldest ONNX Runtime
	@echo "==> pytest: $(TESTS), slow"
	@$(RUN) -m pytest -n $(JOBS) -m slow $(TESTS)

clients: install-dev  ## real clients against a server, each set in an environment of its own
	@$(RUN) -m pytest -n $(JOBS) -m slow tests/clients

models: install-dev  ## measure families, heads and checkpoints; write docs/models.json and models.md
	@$(RUN) -W ignore -m tests.matrix $(if $(FAMILY),--family $(FAMILY)) \
		$(if $(HEAD),--head $(HEAD)) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))

check: install-dev  ## ruff, mypy, and the direction of imports
	@echo "==> ruff check"
	@$(RUN) -m ruff check .
	@echo "==> ruff format --check"
	@$(RUN) -m ruff format --check .
	@echo "==> mypy"
	@$(RUN) -m mypy
	@echo "==> lint-imports"
	@$(VENV)/bin/lint-imports

format: install-dev  ## let ruff format and fix the code
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

bench: install-dev  ## throughput and cold start against Sentence Transformers on this machine
	@$(RUN) -m benchmarks.throughput $(if $(MODEL),--model "$(MODEL)") $(if $(DATA),--data "$(DATA)")
	@$(RUN) -m benchmarks.cold_start $(if $(MODEL),--model "$(MODEL)")

# The libraries of the machine at hand, not of $(VENV): a GPU's driver decides which fit.
gpu-check:  ## on a machine with an NVIDIA GPU: parity of the families, and speed, in nine minutes
	@$(PYTHON) -m benchmarks.gpu $(if $(DATA),--data "$(DATA)") $(if $(OUTPUT),--output "$(OUTPUT)") \
		$(if $(TARGETS),--targets "$(TARGETS)")

clean:  ## remove caches and build output
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path "./.venv*" -prune -exec rm -rf {} +

distclean: clean  ## remove the environment too
	rm -rf "$(VENV)"

install: python
	@$(BOOTSTRAP) cpu,compile,serve

install-dev: python
	@$(BOOTSTRAP) cpu,compile,serve,bulk,dev

# With NVIDIA's builder, which runs without a GPU (an x86-64 Linux has wheels of it).
install-engines: python
	@$(BOOTSTRAP) cpu,compile,serve,bulk,dev,engines

python:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: name one with PYTHON=<path>" >&2; exit 1; }
