# Lineshaft. `make help` lists what there is. Needs Python 3.11 or newer, pip and make; nothing else.

PYTHON ?= python3
VENV   ?= .venv
# LIMIT: how many flights `make run` settles (all, when empty). ARGS: passed on to the program or to pytest.
LIMIT  ?=
ARGS   ?=
# STORE: what `make bench` measures; empty means a fresh file on this disk (a temporary directory may live in
# memory, where a durable commit costs nothing).
STORE  ?=
# SEEDS, SEED: how many seeds of the simulation `make campaign` plays, or the one to show. MINUTES: for how long it
# plays, or `make soak` goes on. KILLS: how often `make flights-kills` kills.
SEEDS   ?=
SEED    ?=
MINUTES ?=
KILLS   ?= 50

# ROUNDS: how often a benchmark takes each value. ONLY: names of benchmarks, or of peers. SCALE: 0.1 measures the engine
# with a tenth of all runs.
ROUNDS ?= 3
ONLY   ?=
SCALE  ?= 1

PYTHONS := 3.11 3.12 3.13
BIN     := $(VENV)/bin
PY      := $(BIN)/python

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

say = @echo '· $(1)'

# Where the venv has no pip of its own (Debian keeps it in python3-venv), the one beside $(PYTHON) installs into it.
INSTALL = if [ -e $(BIN)/pip ]; then set -- $(PY) -m pip; else set -- $(PYTHON) -m pip --python $(PY); fi; \
  "$$@" --disable-pip-version-check --no-input install --quiet

# ------------------------------------------------------------------------------------------ environments

# An environment knows its own address: one that came along with a copied or moved checkout is made again.
ifneq ($(shell cat $(VENV)/.home 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.home
endif

$(VENV)/.home:
	$(call say,creating $(VENV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than Python 3.11. Say which one to use: make PYTHON=python3.12 …" >&2; exit 1; }
	@rm -rf $(VENV)
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --without-pip $(VENV); \
	else echo "$(PYTHON) has neither pip nor ensurepip. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi
	@echo "$(CURDIR)" > $@

$(VENV)/.run: requirements/run.txt requirements/flights.txt pyproject.toml $(VENV)/.home
	$(call say,installing what Lineshaft needs)
	@$(INSTALL) --require-hashes -r requirements/run.txt
	$(call say,installing the data of the example)
	@$(INSTALL) --require-hashes --no-deps --no-build-isolation --use-pep517 -r requirements/flights.txt
	$(call say,installing Lineshaft)
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(call say,installing what checks and tests need)
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# ------------------------------------------------------------------------------------------ the commands

.PHONY: run
run: $(VENV)/.run ## settle a year of flights, durably (LIMIT=5000 for the first 5,000)
	@$(PY) -m examples.flights $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

.PHONY: test
test: $(VENV)/.dev ## run every test (ARGS="-k lanes" for some)
	@$(PY) -m pytest $(ARGS)

# What only the system's package manager has, as "program:package".
SYSTEM := fiu-run:fiu-utils faketime:faketime strace:strace unshare:util-linux

.PHONY: test-servers
test-servers: $(VENV)/.dev ## run the tests that need root and Debian packages, which it installs
	@[ "$$(id -u)" = 0 ] || { echo "make test-servers needs root: it installs packages, makes memory cgroups" \
	  "and traces processes. 'make test' does not." >&2; exit 1; }
	@missing=; for each in $(SYSTEM); do \
	  command -v "$${each%%:*}" >/dev/null || missing="$$missing $${each##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "Install these first:$$missing" >&2; exit 1; }; \
	  echo "· installing$$missing"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	fi
	@$(PY) -m pytest -m servers $(ARGS)

# A process that is killed while it writes what it measured leaves a broken file, which is passed over.
.PHONY: coverage
coverage: $(VENV)/.dev ## run every test and show what of src they never reach (fails below 95 %)
	@rm -f .coverage .coverage.*
	@$(PY) -m coverage run -m pytest $(ARGS); tests=$$?; \
	  $(PY) -W ignore -m coverage report && exit $$tests
	@rm -f .coverage.*

# BUDGET_MINUTES: for how long faults are planted, of those that can be a sample by chance; 0 for all, which takes hours.
BUDGET_MINUTES ?= 20
.PHONY: mutation
mutation: $(VENV)/.dev ## plant faults in the core and see whether tests find them (BUDGET_MINUTES=20; ARGS=core/duration.py)
	@$(PY) -m tests.mutation --minutes $(BUDGET_MINUTES) $(ARGS)

.PHONY: check check-lint check-format check-types check-floors check-tidy
check: check-lint check-format check-types check-floors check-tidy ## style, types, import floors, tidy rules

check-lint: $(VENV)/.dev
	$(call say,ruff check)
	@$(BIN)/ruff check --quiet .

check-format: $(VENV)/.dev
	$(call say,ruff format)
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check . | grep '^Would'; exit 1; }

check-types: $(VENV)/.dev
	$(call say,mypy)
	@report=$$($(BIN)/mypy 2>&1) || { echo "$$report"; exit 1; }

check-floors: $(VENV)/.dev
	$(call say,import floors)
	@report=$$($(BIN)/lint-imports 2>&1) || { echo "$$report"; exit 1; }

check-tidy: $(VENV)/.dev
	$(call say,tidy rules)
	@report=$$($(PY) -m pytest -q tests/architecture/test_tidy.py 2>&1) || { echo "$$report"; exit 1; }

.PHONY: format
format: $(VENV)/.dev ## let ruff format and repair what it can
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

.PHONY: bench
bench: $(VENV)/.run ## measure throughput, latency and backlog (STORE=URL for a store of your own)
	@rm -rf .bench && mkdir .bench
	@for workload in throughput latency backlog; do \
	  $(BIN)/lineshaft bench --workload $$workload \
	    --store "$${STORE:-sqlite:///.bench/$$workload.db}" $(ARGS) || exit 1; \
	done
	@rm -rf .bench

.PHONY: bench-engine
bench-engine: $(VENV)/.run ## measure every aim of the engine on this disk (ONLY="drain latency", ROUNDS=3, SCALE=1)
	@$(PY) -m benchmarks.engine --rounds $(ROUNDS) --scale $(SCALE) $(if $(ONLY),--only $(ONLY)) $(ARGS)
	@$(PY) -m benchmarks.report

# Each peer, and the Redis server, has an environment of its own, by the name of its file of requirements.
PEERS := $(basename $(notdir $(wildcard benchmarks/peers/requirements/*.in)))

$(VENV)/.peer: benchmarks/peers/requirements/$(notdir $(VENV)).txt $(VENV)/.home
	$(call say,installing $(notdir $(VENV)))
	@$(INSTALL) --require-hashes -r $<
	@touch $@

.PHONY: bench-peers
bench-peers: $(VENV)/.run ## measure Lineshaft beside its peers, about 25 minutes (ROUNDS=3, ONLY="celery arq")
	@for peer in $(PEERS); do \
	  $(MAKE) VENV=.bench-peers/$$peer .bench-peers/$$peer/.peer || exit 1; \
	done
	@$(PY) -m benchmarks.peers --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY)) $(ARGS)
	@$(PY) -m benchmarks.report

.PHONY: soak
soak: $(VENV)/.dev ## mixed work under a nemesis for half an hour: sound and flat? (MINUTES=5 for less)
	@$(PY) -m tests.crash.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

.PHONY: flights-kills
flights-kills: $(VENV)/.dev ## kill the flights application fifty times in a row, and check every total (KILLS=10)
	@$(PY) -m tests.crash.flights_kills --kills $(KILLS) $(ARGS)

.PHONY: campaign
campaign: $(VENV)/.dev ## play many seeds of the simulation (SEEDS=100000, MINUTES=60; SEED=7 shows one)
	@$(PY) -m tests.simulation.campaign $(if $(SEEDS),--seeds $(SEEDS)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: test-all-pythons
test-all-pythons: ## run the tests on every supported Python that is installed, each in its own environment
	@ran=; failed=; \
	for version in $(PYTHONS); do \
	  found=; \
	  for candidate in python$$version "$$HOME"/.pyenv/versions/$$version.*/bin/python3 $(PYTHON); do \
	    if "$$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null; \
	    then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "· Python $$version is not installed: not tested"; continue; fi; \
	  echo "· Python $$version"; ran="$$ran $$version"; \
	  $(MAKE) test PYTHON="$$found" VENV=.venv-$$version || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "· tests failed on Python$$failed" >&2; exit 1; fi; \
	echo "· tests passed on Python$$ran"

# ------------------------------------------------------------------------------------------ upkeep

# The lock files hold for every supported Python and platform, and name no index. uv alone would read the
# settings of this machine; it is kept from them, so that versions and hashes are those of the public registry.
LOCK_VENV := .venv-lock
LOCK = env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
  $(LOCK_VENV)/bin/uv pip compile --no-config --system-certs --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: ## write requirements/*.txt again (UPGRADE=1 for the newest versions)
	$(call say,locking requirements)
	@test -x $(LOCK_VENV)/bin/uv || { $(PYTHON) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/python -m pip \
	  --disable-pip-version-check install --quiet --require-hashes -r requirements/lock.txt; }
	@$(LOCK) requirements/lock.in -o requirements/lock.txt
	@$(LOCK) pyproject.toml requirements/build.in -o requirements/run.txt
	@$(LOCK) pyproject.toml requirements/build.in requirements/dev.in -c requirements/run.txt -o requirements/dev.txt
	@$(LOCK) --no-deps requirements/flights.in -o requirements/flights.txt
	@for peer in $(PEERS); do \
	  $(LOCK) benchmarks/peers/requirements/$$peer.in -o benchmarks/peers/requirements/$$peer.txt || exit 1; \
	done

.PHONY: clean
clean: ## remove environments, caches and builds; stores are left alone
	@rm -rf .venv .venv-* .bench .bench-peers .soak .flights-kills-* build dist src/*.egg-info
	@rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  while IFS='|' read -r name text; do printf '  make %-17s %s\n' "$$name" "$$text"; done
