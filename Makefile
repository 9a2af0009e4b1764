# make demo: sets up .venv, trains src20 on scikit-learn's digits, prunes it, tests it, prints a table
# make test: sets up .venv, runs the tests; make test-fast: the quick ones, under a minute
# make test-long: what make test leaves out, whole benchmarks and the slower of several cases
# make crash-sample: a short run killed ten times and gone on with
# make docs: the pages of docs/ as a site, in site/; a dead link fails
# make wheel: the package rr alone, in dist/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# With bytecode kept, whatever the shell says: else every worker and process would compile all files anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast test-long crash-sample lint docs wheel clean

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not long"

test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow and not long"

test-long: $(VENV)/.installed-dev
	$(PYTEST) -m long

crash-sample: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/crash.py --commands "pruning, 12 steps" --kills 10 --jobs 2 --output "$$(mktemp -d)/crash.json"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "=== open site/index.html; with search: $(BIN)/python -m http.server -d site"

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

$(VENV)/.installed: requirements.txt
	@echo "=== setting up $(VENV): PyTorch and what the scripts need; some minutes, once"
	@echo "=== some 6 GB with CUDA wheels, and 3 GB for a moment while pip unpacks; free here: $$(df -Ph . | awk 'NR == 2 {print $$4}')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "=== setting up $(VENV): pytest, ruff, MkDocs and the networks that tests prune (timm); a minute, once"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) demo_run dist site
