# make demo    soft and hard attention side by side on real digits
# make test    the tests (those in a real browser need Chromium)
# make check   style and types
# make test-triton  the kernels for CUDA, in Triton's interpreter, which is a gigabyte
# make bench   the glimpse sensor against a plain reference; numbers go to benchmarks/results/
# make docs    the site, in build/docs; neither building nor reading it needs a network
# make setup   everything for working on regard
#
# Each installs what it lacks into .venv, at the versions in constraints.txt, and only once.

PYTHON ?= python3
BIN := .venv/bin
# Each process begins with half of the tests, in order: what neighbours share is made once, a compiled kernel too.
PARALLEL := -n 2 --dist worksteal

.PHONY: demo test test-triton check bench docs setup

demo: .venv/.demo
	$(BIN)/regard compare

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) -m unchecked
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) -m "not unchecked" --jaxtyping-packages=regard,beartype.beartype

test-triton: .venv/.triton
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) tests/laws/test_5_triton.py

check: .venv/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

bench: .venv/.demo
	$(BIN)/regard bench glimpse --out benchmarks/results/glimpse.json

docs: .venv/.docs
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet docs build/docs

setup: .venv/.test

.venv/.demo: EXTRAS =
.venv/.test: EXTRAS = [dev,docs,export,hub,huggingface,logging,oracles,slides,speech,text]
.venv/.triton: EXTRAS = [dev,export,hub,huggingface,logging,oracles,slides,speech,text,triton]
.venv/.docs: EXTRAS = [docs]

# The build tools are installed first, at their pinned versions too; where nothing is missing, pip asks no network.
.venv/.demo .venv/.test .venv/.triton .venv/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet -c constraints.txt hatchling editables
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation --editable '.$(EXTRAS)'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
