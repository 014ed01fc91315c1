# Everything that is done with natterlog; `make` alone lists it.
# Needs make, git and Python 3.11 or newer with its venv module. All else is
# installed into .venv, from files that name every package by its hash.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PYTEST := $(BIN)/python -m pytest -n 2
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run unit test chaos check fmt bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "ARGS go to the program: make run ARGS='--workers 4', make test ARGS='-k cursor',"; \
	echo "make chaos ARGS='--seed 7 --seconds 300'"

run: $(VENV)/.run ## start natterlog with all it needs, until Ctrl-C
	@exec $(BIN)/natterlog up $(ARGS)

unit: $(VENV)/.dev ## run the tests that need neither process nor socket: half a minute
	$(PYTEST) --dist worksteal -p no:schemathesis --hypothesis-profile quick tests/unit $(ARGS)

# In the order of the folders, so that the longest files, those of chaos, come first.
test: $(VENV)/.dev ## run all tests, two files at a time
	$(PYTEST) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(VENV)/.dev ## break a running system by a seed, and check every character (docs/reliability.md)
	$(BIN)/python -m tests.chaos.harness $(ARGS)

check: $(VENV)/.dev ## lint, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

fmt: $(VENV)/.dev ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure, and write the numbers to benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(VENV)/.dev ## choose the versions anew within pyproject.toml (ARGS=--upgrade: the newest)
	$(COMPILE) pyproject.toml --group build -o requirements.txt $(ARGS)
	$(COMPILE) pyproject.toml --group build --group dev -c requirements.txt -o requirements-dev.txt $(ARGS)

clean: ## remove what can be made anew; data/ stays
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find services shared tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# -- the environment: each stamp says that its step is done and still up to date --

$(VENV)/.made:
	@python=; for it in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$it -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python=$$it; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "natterlog needs Python 3.11 or newer with its venv module" \
			"(Debian, Ubuntu: apt install python3-venv); make PYTHON=… names one." >&2; \
		exit 1; \
	fi; \
	$$python -m venv $(VENV)
	@touch $@

# The build back end is in the lock too, so that nothing is fetched behind it.
$(VENV)/.run: $(VENV)/.made requirements.txt pyproject.toml
	@echo "Installing what natterlog needs into $(VENV), once; this takes a minute or two." >&2
	$(PIP) install --quiet --require-hashes -r requirements.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(PIP) install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
