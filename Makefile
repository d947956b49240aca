# Everything is made from Python (3.11 or later), Node with npm, and, for the browser tests, Chromium.
# Package indexes and proxies are those of the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PAGE := examples/chat
NODE_FOLDERS := $(PAGE) tests/clients
# Apart, for it may have to compile: only the benchmarks need it.
PEERS := benchmarks/peers
CHECKED := reactor app_functions schema.py benchmarks
PUBLIC := reactor/__init__.py reactor/testing.py reactor/client reactor/webhooks.py reactor/contrib tests/types/good.py app_functions schema.py

.PHONY: help install web dev test check format clean chromium

help:
	@echo "make dev      install what is needed, build the chat page and serve it with the app in this folder"
	@echo "make test     checks and all tests (what CI runs)"
	@echo "make check    lint and types only"
	@echo "make benchmark-NAME [ARGS=...]   measure; the names are in docs/benchmarks.md"
	@echo "make format   let ruff format and sort"
	@echo "make clean    remove everything that was made, databases excepted"

install: $(VENV)/.installed $(NODE_FOLDERS:%=%/node_modules/.installed)

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	touch $@

%/node_modules/.installed: %/package.json %/package-lock.json
	cd $* && npm ci --prefer-offline --no-audit --no-progress --loglevel=error
	touch $@

web: $(PAGE)/dist/index.html

$(PAGE)/dist/index.html: $(PAGE)/node_modules/.installed $(PAGE)/build.mjs $(wildcard $(PAGE)/src/*) $(wildcard $(PAGE)/public/*)
	cd $(PAGE) && npm run --silent build
	touch $@

dev: install web
	$(BIN)/reactor dev --static $(PAGE)/dist $(ARGS)

# The tests start a Postgres of their own for each worker; REACTOR_TEST_POSTGRES_URL names one that runs already.
# Three workers for two cores: many tests wait for processes, and for time to pass. Those processes take up reactor's modules
# compiled, also where the environment says that Python is to leave none: each would compile for a quarter of a second.
test: check web chromium $(PEERS)/node_modules/.installed
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CHECKED)
	$(BIN)/basedpyright $(PUBLIC)
	$(BIN)/lint-imports
	cd $(PAGE) && npm run --silent check

# Figures that mean something need a machine that does nothing else.
benchmark-%: install $(PEERS)/node_modules/.installed
	$(BIN)/python benchmarks/$*.py $(ARGS)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The browser tests drive the system's Chromium. Without it they are left out, except in CI.
chromium:
	@if ! { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; \
		else \
			echo "No Chromium: install it for the browser tests (Debian: sudo apt-get install chromium)."; \
			test -z "$$CI"; \
		fi; \
	fi

clean:
	rm -rf $(VENV) $(NODE_FOLDERS:%=%/node_modules) $(PEERS)/node_modules $(PAGE)/dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
