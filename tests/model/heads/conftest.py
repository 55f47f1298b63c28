"""What the tests of heads share."""

from pathlib import Path

import pytest

from helpers.feature_heads import save_target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny target for which heads are made."""
    return save_target(tmp_path_factory.mktemp("target"))
