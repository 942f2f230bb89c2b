# The commands of this project; each does all of its own set-up in .venv.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= passive

.PHONY: test bench install lint docs perf fuzz clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -P -m venv .venv
	$(BIN)/python -P -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -P -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

# A process for each core with one thread each (17 minutes instead of 28 for all of them on two cores), but one after
# the other where signals, time limits and processes of their own are what is tested.
ALONE := tests/unit/run tests/unit/bench tests/integration tests/fuzz
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n auto --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/python -P -m pytest $(ALONE)

bench: install
	$(BIN)/python run_benchmark.py

# The documentation as a site: build/site/docs/index.html. Warnings are errors.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -c docs . build/site

fuzz: install
	$(BIN)/python tests/fuzz/fuzz.py

perf: install
	$(BIN)/python benchmarks/perf/run.py

clean:
	rm -rf .venv results
