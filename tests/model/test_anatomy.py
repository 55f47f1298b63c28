"""The parts of a model are found once for each checkpoint."""

import gc
import weakref
from pathlib import Path

import pytest

from helpers.models import ARCHITECTURES
from swarm.model import anatomy
from swarm.model.anatomy import study
from swarm.model.checkpoint import Checkpoint


def test_a_checkpoint_is_studied_once_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHITECTURES["llama"].save(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = study(checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(anatomy, "skeleton", lambda *_: pytest.fail("built again"))
        assert study(checkpoint) is found
    assert study(Checkpoint.open(str(tmp_path))) == found
    living = weakref.ref(checkpoint)
    del checkpoint
    gc.collect()
    assert living() is None
