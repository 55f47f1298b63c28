"""Fixtures of all tests, and whatever imports torch: `conftest` leaves this module out where no test is run."""

from collections.abc import Iterator

import pytest
import torch
from pocket import expected, make, material
from support import children
from threaded import threaded
from warm import OVEN, warmly

__all__ = ["expected", "make", "material", "threaded", "warmly"]

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _nothing_survives() -> Iterator[None]:
    yield
    OVEN.close()
    assert children() == {}
