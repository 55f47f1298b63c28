"""Every test has folders of its own, and no test leaves a process behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pocket import expected, make, material
from support import children
from threaded import threaded
from warm import OVEN, warmly

__all__ = ["expected", "make", "material", "threaded", "warmly"]  # fixtures

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many processes of tiny models share the cores; for them, too
torch.set_num_threads(1)
# A script's shell starts jobs in the background to ignore SIGINT, and children that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's keys, caches and settings."""
    (tmp_path / "bootstrap.toml").write_text('network = "test"\nbootstrap = []\n')
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWARM_CONFIG", str(tmp_path / "bootstrap.toml"))
    monkeypatch.delenv("SWARM_BOOTSTRAP", raising=False)
    monkeypatch.delenv("SWARM_NETWORK", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _nothing_survives() -> Iterator[None]:
    yield
    OVEN.close()
    assert children() == {}
