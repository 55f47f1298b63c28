"""Give every test folders of its own, and import the fixtures of all tests."""

import gc
import os
import signal
from pathlib import Path

import hypothesis
import pytest

# many processes with tiny models share the cores; child processes inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A script's shell starts background jobs with SIGINT ignored, which children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup` has SIGHUP ignored. A handler ignores it here, too, and no child inherits a handler.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
# Machines are shared: how long an example takes says nothing of the code.
hypothesis.settings.register_profile(
    "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    distributes = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not distributes:  # it runs no test, and the import takes seven seconds
        gc.disable()  # until all is imported: a sixth of the time, and nothing would be found
        config.pluginmanager.import_plugin("helpers.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run whole swarms first: they take longest, and no worker should end with one of them."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


def pytest_collection_finish() -> None:
    """Let no later collection look at what was imported: each would take half a second."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Leave nothing to the collection with which pytest ends.

    xdist gives a worker five seconds to end after this, and then a SIGINT.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's keys, caches and settings."""
    (tmp_path / "bootstrap.toml").write_text('network = "test"\nbootstrap = []\n')
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWARM_CONFIG", str(tmp_path / "bootstrap.toml"))
    monkeypatch.delenv("SWARM_BOOTSTRAP", raising=False)
    monkeypatch.delenv("SWARM_NETWORK", raising=False)
