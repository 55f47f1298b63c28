# Everything a contributor or a curious stranger types. Everything lands in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: install demo chat test bench lint lock clean

install: $(VENV)/.installed

# pip compiles what it installs on one core, compileall on all; a few files are templates that no Python can compile.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: install
	$(BIN)/swarm demo $(ARGS)

# A swarm on this machine, and its pages: open the address that it prints.
chat: install
	$(BIN)/swarm demo --serve $(ARGS)

# One more than the cores that continuous integration has: a third of the time tests wait, for processes and clocks.
WORKERS ?= 3
# What one process compiles of ours, others read, whatever the environment says: the tests start many.
test: export PYTHONDONTWRITEBYTECODE :=
test: install
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
else
	$(BIN)/python -m pytest $(ARGS)
endif

# The tests on checkpoints that are not ours, which are downloaded (90 and 240 MB) and converted first: docs/testing.md.
SWARM_TEST_REAL ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/swarm-test
.PHONY: real
real: install
	$(BIN)/python tests/helpers/checkpoints.py "$(SWARM_TEST_REAL)"
	SWARM_TEST_REAL="$(SWARM_TEST_REAL)" $(BIN)/python -m pytest -m real tests/real $(ARGS)

# The tests with clients of other projects, which are downloaded (150 MB) and installed first: docs/testing.md.
SWARM_TEST_CLIENTS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/swarm-test/clients
.PHONY: clients
clients: install
	$(BIN)/python tests/helpers/client_packages.py "$(SWARM_TEST_CLIENTS)"
	SWARM_TEST_CLIENTS="$(SWARM_TEST_CLIENTS)" $(BIN)/python -m pytest -m clients tests/gateway/clients $(ARGS)

# The emulated internet takes Linux and root; without, members hold back their own messages.
bench: install
	$(BIN)/python tests/lab/bench.py $(ARGS)

# What only a host with a GPU can show: that it computes what the CPU does, and how fast. About five minutes.
.PHONY: gpu-check
gpu-check: install
	$(BIN)/python -m tests.gpu $(ARGS)

# The documentation as a site, in site/.
.PHONY: docs
docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5'
	$(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The lock holds for every supported Python. CUDA libraries are left to torch itself: a host without a GPU has none.
NOT_LOCKED := cuda-bindings cuda-pathfinder cuda-toolkit triton setuptools
lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --group dev --group lock \
		$(NOT_LOCKED:%=--no-emit-package %) pyproject.toml | grep -v '^nvidia-' > requirements.lock

clean:
	rm -rf $(VENV)
