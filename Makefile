# Everything a contributor or a curious stranger types. Everything lands in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: install demo chat test bench lint lock clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: install
	$(BIN)/swarm demo $(ARGS)

# A swarm on this machine, and its pages: open the address that it prints.
chat: install
	$(BIN)/swarm demo --serve $(ARGS)

# First tests of modules, then those of whole swarms, which start many processes: two at a time.
test: install
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/e2e
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/e2e
else
	$(BIN)/python -m pytest $(ARGS)
endif

# The tests on checkpoints that are not ours, which are downloaded (90 and 240 MB) and converted first: docs/testing.md.
SWARM_TEST_REAL ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/swarm-test
.PHONY: real
real: install
	$(BIN)/python tests/checkpoints.py "$(SWARM_TEST_REAL)"
	SWARM_TEST_REAL="$(SWARM_TEST_REAL)" $(BIN)/python -m pytest -m real tests/real $(ARGS)

# The emulated internet takes Linux and root; without, members hold back their own messages.
bench: install
	$(BIN)/python tests/lab/bench.py $(ARGS)

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
