"""What is decided before a network is entered."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.loopback import soon
from helpers.models import Architecture
from peers.compute import dtype
from peers.options import PeerOptions, prepare
from swarm.config import Network


@pytest.fixture
def options(tmp_path: Path) -> PeerOptions:
    """For weights in bfloat16."""
    Architecture("llama").save(tmp_path).bfloat16().save_pretrained(tmp_path)
    return PeerOptions(
        model=str(tmp_path),
        layers=None,
        network=Network("test"),
        key_file=None,
        host="127.0.0.1",
        port=0,
        announce=None,
        device=torch.device("cpu"),
        dtype=None,
        cache_tokens=100,
    )


@pytest.mark.parametrize("pays", [True, False])
async def test_without_a_dtype_the_faster_one_is_taken_and_room_is_reckoned_in_it(
    options: PeerOptions, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtype, "measure_bfloat16", lambda width: pays)
    chosen = await soon(prepare(options))
    assert chosen.dtype == (torch.bfloat16 if pays else torch.float32)
    asked = await soon(prepare(replace(options, dtype=torch.float32)))
    assert asked.dtype == torch.float32
    ratio = asked.room.needs.layer_bytes[0] / chosen.room.needs.layer_bytes[0]
    assert ratio == (2.0 if pays else 1.0)
