# make demo: the main job on a real table.   make test: every test.   Both set up all they need.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: venv demo test check format bench clean
.DEFAULT_GOAL := help
.PHONY: help
help:
	@grep -E '^# make' Makefile | sed 's/^# //; s/   /\n/g'

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[kernels,test,check]'
	touch $@

# make demo: what a newcomer sees first.
demo: venv
	$(BIN)/lastlayer fit data/penguins.csv.gz --target species --out demo/penguins --force
	$(BIN)/lastlayer predict demo/penguins data/penguins.csv.gz --out demo/predictions.csv
	$(BIN)/lastlayer evaluate demo/penguins data/penguins.csv.gz
	head -n 4 demo/predictions.csv

# One process a core, one thread each: two at a time on two cores.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# make check: lint, format, types, import directions.
check: venv
	$(BIN)/ruff check src tests benchmarks studies
	$(BIN)/ruff format --check src tests benchmarks studies
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_import_directions.py

format: venv
	$(BIN)/ruff check --fix src tests benchmarks studies
	$(BIN)/ruff format src tests benchmarks studies

# make bench: speed and quality beside other libraries, on the tables in DATA.   DATA=folder
DATA ?= ../shared/data
bench: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,kernels]'
	$(BIN)/python benchmarks/losses.py --out benchmarks/results/losses.md
	$(BIN)/python benchmarks/small_problems.py --out benchmarks/results/small_problems.md
	$(BIN)/python benchmarks/fused_linear.py --out benchmarks/results/fused_linear.md
	$(BIN)/python benchmarks/training.py --out benchmarks/results/training.md
	$(BIN)/python benchmarks/ensembles.py --out benchmarks/results/ensembles.md
	$(BIN)/python benchmarks/recorder.py --out benchmarks/results/recorder.md
	$(BIN)/python benchmarks/doctor.py --out benchmarks/results/doctor.md
	$(BIN)/python benchmarks/images.py --data $(DATA) --out benchmarks/results/images.md
	$(BIN)/python benchmarks/tables.py --data $(DATA) --out benchmarks/results/tables.md
	$(BIN)/python benchmarks/recipe.py --data $(DATA) --out benchmarks/results/recipe.md

# make studies: published experiments beside what is measured here.   DATA=folder
studies: venv
	$(BIN)/python studies/uci.py --data $(DATA) --out studies/results --jobs 2
	$(BIN)/python studies/beta_weighting.py --data $(DATA) --out studies/results
	$(BIN)/python studies/coverage.py --data $(DATA) --out studies/results --seeds 5
	$(BIN)/python studies/dense_uncertainty.py --data $(DATA) --out studies/results
	$(BIN)/python studies/initialization.py --out studies/results
	$(BIN)/python studies/slowdown.py --out studies/results
	$(BIN)/python studies/numerical_differentiation.py --out studies/results

clean:
	rm -rf .venv demo build .pytest_cache .mypy_cache .ruff_cache
