# Each target does its own set-up; a second call finds it done.
# The order of what a target needs is meant, also under make -j.
.NOTPARALLEL:
.PHONY: help demo test lint docs unit vm hub-test bench bench-class lab lab-test hub drills soak deps deps-browser deps-demo deps-hub deps-lab clean

VENV = .venv
BIN  = $(VENV)/bin

# What a host needs to run a local cluster, and what only the tests need on top.
DEMO_PACKAGES = ca-certificates e2fsprogs mmdebstrap openssh-client procps qemu-system-x86 qemu-utils uidmap vde2 zstd
TEST_PACKAGES = binutils git iproute2
# The lab's database, and what makes its config drives; the rest of the lab is from PyPI. Not mariadb-server, which would
# start one on the host.
LAB_PACKAGES = genisoimage mariadb-client-core mariadb-server-core util-linux
# The Hub's bed is made of namespaces.
HUB_PACKAGES = iproute2 mmdebstrap procps uidmap util-linux
# What a student uses, on the bed and on VMs; certutil tells it whom to trust.
BROWSER_PACKAGES = chromium fonts-liberation libnss3-tools
# It needs users with numbers of their own: root, or somebody who may be root in a namespace.
ROOTED = $(if $(filter 0,$(shell id -u)),,unshare --user --map-root-user --map-auto)

help:
	@echo 'make demo    a Slurm cluster of three VMs on this machine, an MPI job on it, and away again'
	@echo 'make test    everything that is checked: lint, docs, unit tests, benchmarks, tests on real VMs'
	@echo 'make lint    ruff, mypy, import-linter'
	@echo 'make docs    the documentation, into site/'
	@echo 'make unit    the tests that need no VM'
	@echo 'make vm      the tests on real VMs'
	@echo 'make bench   the benchmarks'
	@echo 'make lab     a real OpenStack control plane on this machine, to try things on; Ctrl-C ends it'
	@echo 'make lab-test  the tests and benchmarks against that, without VMs'
	@echo 'make hub     a Slurm cluster with JupyterHub on this machine without VMs, to try things on; Ctrl-C ends it'
	@echo 'make hub-test  the tests on that, some with a browser'
	@echo 'make bench-class  a class of 127 on it, and on a bare JupyterHub to compare; an hour, 20 GiB, an idle machine'
	@echo 'make drills  what breaks machines under a class on real VMs, a Hub on the lab with real VMs; half an hour'
	@echo 'make soak    the long sweeps: kill -9 after every request, 300 seeds of faults, 200 workers; hours'
	@echo 'make deps    all that the above need: .venv and Debian packages'
	@echo 'make clean   remove .venv and all that was built here'

demo: deps-demo $(VENV)/.run
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

# Cheap before dear, so that a mistake is told within a minute. Here the chaos tests take all their hundred seeds.
test: export VCLUSTER_CHAOS_SEEDS = 100
test: deps deps-lab deps-hub lint docs unit bench lab-test hub-test vm

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

unit: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist worksteal -m 'not vm and not lab and not hub and not browser and not drill' --timeout 300 --durations 5 tests/unit

bench: $(VENV)/.dev
	$(BIN)/pytest --timeout 300 tests/bench

vm: deps deps-lab deps-browser
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 2 --dist loadscope -m 'vm and not drill' --timeout 1500 --durations 10 tests/vm tests/lab

# One after the other: each wants the whole machine.
drills: deps deps-lab deps-browser
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -m drill --durations 10 tests/vm tests/lab

# Flags by LAB=, such as LAB="--machines qemu".
lab: deps-lab
	$(BIN)/python -m tests.lab up $(LAB)

# Labs side by side, some for the tests among neighbours. Of the long sweeps a fixed sample; "make soak" is all of them.
lab-test: deps-lab
	$(BIN)/pytest -n 3 --dist loadscope -m 'not vm and not browser' --timeout 1800 --durations 10 tests/lab
	$(BIN)/pytest -m lab --timeout 600 tests/bench

# Flags by HUB=, such as HUB="--spec examples/workshop-slurm.yaml".
hub: deps-hub
	$(ROOTED) $(BIN)/python -m tests.hub up $(HUB)

# Each process has a bed of its own.
hub-test: deps-hub
	$(ROOTED) $(BIN)/pytest -n 2 --dist loadfile -m hub --timeout 1800 --durations 10 tests/hub tests/browser

# The size and more by environment: tests/bench/bench_class.py.
bench-class: deps-hub
	$(ROOTED) $(BIN)/pytest -m hub -s tests/bench/bench_class.py

soak: export VCLUSTER_SOAK = 1
soak: deps-lab
	$(BIN)/pytest -n 2 --dist worksteal -m lab --durations 10 tests/lab/sweep
	$(BIN)/pytest -m lab tests/bench

deps: deps-demo $(VENV)/.dev
	@sh .ci/debian.sh $(TEST_PACKAGES)

deps-demo:
	@sh .ci/debian.sh $(DEMO_PACKAGES) $$(sh .ci/venv.sh)

deps-lab: $(VENV)/.dev
	@sh .ci/debian.sh $(LAB_PACKAGES)
	@$(BIN)/python -m tests.lab install

deps-browser:
	@sh .ci/debian.sh $(BROWSER_PACKAGES)

deps-hub: $(VENV)/.dev deps-browser
	@sh .ci/debian.sh $(HUB_PACKAGES)
	@$(ROOTED) $(BIN)/python -m tests.hub install

$(BIN)/python:
	@sh .ci/debian.sh $$(sh .ci/venv.sh) && sh .ci/venv.sh $(VENV)

# What a user installs; and that plus what a developer needs. Dependency groups came with pip 25.1.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
