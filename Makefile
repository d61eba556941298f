# Every target is one line; what it does is in the tool it calls.
VENV ?= .venv
PY   := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help demo test mariadb check lint format integration torture torture-bugs soak bench profile run clean

help:         ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/.ready: pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "s3flow needs Python 3.11 or newer as python3: apt-get install python3"; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { echo "python3 lacks venv: run 'apt-get install python3-venv' and try again"; exit 1; }
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready         ## move real objects between two accounts and to disk, interrupted and resumed
	$(PY) -m tests.demo

# The one thing that the tests need and pip has not: a server for the state, which they start themselves.
mariadb:      ## see that there is a MariaDB for the tests; installs it where apt-get can
	@PATH="$$PATH:/usr/sbin"; command -v mariadbd >/dev/null || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends mariadb-server; } || \
	  { echo "the tests need MariaDB: run 'apt-get install --no-install-recommends mariadb-server' and try again"; exit 1; }

test: $(VENV)/.ready mariadb   ## all tests that need nothing but pip and MariaDB (under 10 minutes on 2 cores)
	$(PY) -m pytest -n 2 --dist worksteal -m "not integration and not long"

check: lint         ## what a change must pass: lint, types, import contracts, tests
	$(MAKE) test

lint: $(VENV)/.ready         ## ruff, mypy --strict, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.ready       ## ruff format, ruff check --fix
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

integration: $(VENV)/.ready  ## the end-to-end suite against real servers (Ceph RGW, localstack; versitygw, MinIO with Go)
	$(PY) -m tests.integration.run

torture: $(VENV)/.ready mariadb  ## try to break every promise, for MINUTES=10; TORTURE="--state mysql --only kill,sim"
	$(PY) -m tests.torture --minutes $(or $(MINUTES),10) $(TORTURE)

torture-bugs: $(VENV)/.ready  ## plant bugs, one after another: the programmes of torture must catch each
	$(PY) -m tests.torture --bugs $(TORTURE)

soak: $(VENV)/.ready         ## a daemon under changes, faults and restarts for HOURS=1; draws build/soak.svg; SOAK="--state mysql"
	$(PY) -m tests.torture.soak --hours $(or $(HOURS),1) $(SOAK)

bench: $(VENV)/.ready        ## wall, CPU and memory beside rclone, s5cmd and others; BENCH="--quick --case small-s3"
	$(PY) -m tests.bench.run $(BENCH)

profile: $(VENV)/.ready      ## a flame graph of one case, with CASE=small-s3
	$(PY) -m tests.bench.profiling $(or $(CASE),small-s3) $(PROFILE)

run: $(VENV)/.ready          ## the daemon, with CONFIG=config.toml
	$(VENV)/bin/s3flow run --config $(or $(CONFIG),config.toml)

clean:        ## remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
