# setup   installs what running needs            up     a cloud under ./var, in the foreground
# demo    the main job, end to end               test   installs what tests need, runs them
# check   format, lint, types, imports, tidy     bench  two minutes of load, ops/s and cpu per operation
PYTHON := .venv/bin/python

.PHONY: setup setup-test up demo test check bench bench-ring bench-storage sim sim-mutants

setup:
	@tools/deploy/install.sh run

setup-test:
	@tools/deploy/install.sh test

up: setup
	@exec .venv/bin/ringfort up --data var

demo: setup
	@exec $(PYTHON) -m tools.deploy.demo

test: setup-test
	$(PYTHON) -m pytest -q

check: setup-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q tests/tidy

bench: setup-test
	@exec $(PYTHON) -m tools.bench.objects

# beside Swift, which it installs in a venv of its own; ARGS=--quick: two minutes
bench-ring: setup-test
	@exec $(PYTHON) -m tools.bench.ring $(ARGS)

# what one device does: ARGS=--quick (two minutes), --full (also 10^7 rows), "--page docs/performance/storage.md"
bench-storage: setup-test
	@exec $(PYTHON) -m tools.bench.storage $(ARGS)

# make sim SEEDS=10000: a longer hunt than the tests'; FROM=301 begins behind theirs
SEEDS ?= 300
FROM ?= 1
sim: setup-test
	@exec $(PYTHON) -m tests.sim --seed $(FROM) --until $(SEEDS)

# for each broken promise the first seed that notices it
sim-mutants: setup-test
	@exec $(PYTHON) -m tests.sim --mutants
