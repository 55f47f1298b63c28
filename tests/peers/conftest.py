from pathlib import Path

import pytest

from helpers.loopback import tiny_checkpoint
from swarm.model.checkpoint import Checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A Llama of random weights; its folder is ``<name>`` under a directory of the test run."""
    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_CACHE", str(folder / "cache"))
        checkpoint = tiny_checkpoint(folder)
        assert checkpoint.fingerprint
    return checkpoint
