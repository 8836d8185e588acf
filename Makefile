# Every command that a person would otherwise have to remember. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input \
	--only-binary :all: --require-hashes
# Acceptance tests wait more than they compute, so there may be more test processes than processors. They keep what
# Python has compiled, or each of them would compile all of it again.
TEST_PROCESSES ?= 3
# The fast ones have no load of their own that more processes could disturb.
FAST_TEST_PROCESSES ?= 5
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help run test test-fast lint load bench faults format requirements settings-doc clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

run: $(VENV)/.installed ## start everything: database, Redis, web, worker
	@$(BIN)/python -m couponapp.local.run

test: $(VENV)/.installed-dev ## run the tests against a real PostgreSQL and a real Redis
	@$(PYTEST) -n $(TEST_PROCESSES) --durations=25 $(ARGS)

test-fast: $(VENV)/.installed-dev ## run the unit and integration tests only, for everyday work
	@$(PYTEST) -n $(FAST_TEST_PROCESSES) tests/unit tests/integration $(ARGS)

lint: $(VENV)/.installed-dev ## check format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

requirements: $(VENV)/.installed-dev ## pin the newest versions that requirements*.in allow
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@for name in requirements requirements-load requirements-dev; do \
		$(BIN)/uv pip compile $$name.in --universal --python-version 3.11 --generate-hashes --upgrade \
			--custom-compile-command "make requirements" --quiet --output-file $$name.txt; done

settings-doc: $(VENV)/.installed ## write the tables of docs/settings.md from the settings' declarations
	@$(BIN)/python -m couponapp.config.document

load: $(VENV)/.installed-load ## an event's crowd, three times the incident's by default, and every promise checked
	@$(BIN)/python -m loadtest.load $(ARGS)

bench: $(VENV)/.installed ## ours against its baselines, as ratios measured side by side
	@$(BIN)/python -m loadtest.bench $(ARGS)

faults: $(VENV)/.installed ## each fault under load: what was expected, what was seen
	@$(BIN)/python -m loadtest.faults $(ARGS)

clean: ## remove the virtual environment and the local data
	@if [ -e var/run/lock ] && ! $(PYTHON) -c "import fcntl; fcntl.flock(open('var/run/lock'), 6)" 2>/dev/null; \
		then echo "make run is still running here"; exit 1; fi
	@if [ -x $(BIN)/python ] && [ -d var/run ]; then $(BIN)/python -c \
		"from pathlib import Path; from couponapp.local.processes import end_orphans; end_orphans(Path('var/run'))"; fi
	rm -rf $(VENV) var

# Each file is complete, so that one pip run is enough: requirements-dev.txt contains requirements-load.txt, which
# contains requirements.txt. Installing a larger file marks the smaller ones as installed too.
$(VENV)/.installed: requirements.txt
$(VENV)/.installed-load: requirements-load.txt
$(VENV)/.installed-load: CONTAINED = $(VENV)/.installed
$(VENV)/.installed-dev: requirements-dev.txt
$(VENV)/.installed-dev: CONTAINED = $(VENV)/.installed $(VENV)/.installed-load
$(VENV)/.installed $(VENV)/.installed-load $(VENV)/.installed-dev:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@echo "installing $< into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) -r $<
	@touch $(CONTAINED) $@
