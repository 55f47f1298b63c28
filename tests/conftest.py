"""Every test has folders of its own, and no test leaves a process behind."""

import os
import signal
from pathlib import Path

import pytest

# many processes of tiny models share the cores; for them, too
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A script's shell starts jobs in the background to ignore SIGINT, and children that tests interrupt
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    hands_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out:  # else it would import for seven seconds before those that run tests begin to
        config.pluginmanager.import_plugin("helpers.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First whole swarms, which take longest: in the end no process waits for another one's last
    file."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's keys, caches and settings."""
    (tmp_path / "bootstrap.toml").write_text('network = "test"\nbootstrap = []\n')
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWARM_CONFIG", str(tmp_path / "bootstrap.toml"))
    monkeypatch.delenv("SWARM_BOOTSTRAP", raising=False)
    monkeypatch.delenv("SWARM_NETWORK", raising=False)
