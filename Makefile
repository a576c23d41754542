# make demo, make test: nothing else is needed but Python >= 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_QUIET := --quiet --disable-pip-version-check

.PHONY: setup demo test adapters lint bench mutants notebooks docs page clean

setup: $(STAMP)

# Made anew when what is to be installed has changed since.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "earthtune needs Python >= 3.11; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up $(VENV) (about 6 GB; three minutes with a fast connection)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_QUIET) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/earthtune demo --out demo --overwrite

# Two processes; each file's tests stay together, for they share what is costly to make.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Does peft read the adapters of `publish --adapter_only`? It lies apart: it brings transformers, which terratorch then
# imports in every process, three seconds each.
PEFT := peft accelerate transformers tokenizers regex typer shellingham annotated-doc
adapters: $(STAMP)
	$(BIN)/python -m pip install $(PIP_QUIET) --constraint constraints.txt --no-deps --target $(VENV)/peft --upgrade $(PEFT)
	PYTHONPATH=$(VENV)/peft $(BIN)/python -c 'import peft'
	PYTHONPATH=$(VENV)/peft $(BIN)/python -m pytest tests/pipelines/publishing/test_adapters.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m pytest tests/benchmarks -o addopts='-q --import-mode=importlib' -s

# Do the tests notice small changes of the code? Survivors are printed.
mutants: $(STAMP)
	$(BIN)/python tests/mutants.py

# Executes each from a clean kernel and stores its outputs.
notebooks: $(STAMP)
	$(BIN)/python notebooks/store.py

# The documentation as pages in site/: links and anchors that lead nowhere fail, and nothing is asked of the network.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs: $(STAMP)
	@$(BIN)/python -m pip install $(PIP_QUIET) --constraint constraints.txt --editable '.[docs]'
	@touch $@

# Do the types of the page's modules hold? Needs TypeScript's tsc on the PATH.
page:
	tsc -p pipelines/edge/page

clean:
	rm -rf $(VENV) demo runs site
