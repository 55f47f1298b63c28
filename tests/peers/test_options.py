"""What is decided before a network is entered."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.loopback import soon
from helpers.models import ARCHITECTURES, Architecture
from peers.compute import dtype
from peers.compute.memory import DoesNotFit
from peers.options import PeerOptions, prepare
from swarm.config import Network
from swarm.errors import ConfigError, SpanError
from swarm.routing.cuts import Cuts


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


@pytest.fixture
def whole_blocks(options: PeerOptions, tmp_path: Path) -> PeerOptions:
    """For a model whose layers 0 and 1, and 2 and 3, cannot be parted."""
    ARCHITECTURES["glm_moe_dsa_shared"].save(tmp_path / "shared")
    return replace(options, model=str(tmp_path / "shared"), dtype=torch.float32)


async def test_layers_that_cannot_be_parted_are_not_served_apart(whole_blocks: PeerOptions) -> None:
    prepared = await soon(prepare(whole_blocks))
    assert (prepared.cuts, prepared.capacity) == (Cuts(4, (2,)), 4)
    assert (await soon(prepare(replace(whole_blocks, layers=(2, 4))))).capacity == 0
    with pytest.raises(SpanError, match="only before the layers 2"):
        await soon(prepare(replace(whole_blocks, layers=(1, 4))))
    with pytest.raises(ConfigError, match="at least 2"):
        await soon(prepare(replace(whole_blocks, max_layers=1)))
    needs = prepared.room.needs
    too_little = needs.total(needs.weights(0, 1), needs.cached(0, 1), 100)
    with pytest.raises(DoesNotFit):
        await soon(prepare(replace(whole_blocks, memory=too_little)))
