"""Fixtures of all tests, and what imports torch: `conftest` skips this module if no test runs."""

from collections.abc import Iterator

import pytest
import torch
from warm import OVEN, warm

from helpers.clock import clock
from helpers.dial_back import bootstrap
from helpers.liars import chains_stay, make_fresh, roomy
from helpers.loopback import children
from helpers.model_folders import draft, target
from helpers.swarm_in_process import expected, loaded_material, make, material
from helpers.swarm_in_thread import threaded

__all__ = [
    "bootstrap",
    "chains_stay",
    "clock",
    "draft",
    "expected",
    "loaded_material",
    "make",
    "make_fresh",
    "material",
    "roomy",
    "target",
    "threaded",
    "warmly",
]

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def warmly() -> Iterator[None]:
    """Let all processes of a module start warm."""
    with warm():
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_survives() -> Iterator[None]:
    yield
    OVEN.close()
    assert children() == {}
