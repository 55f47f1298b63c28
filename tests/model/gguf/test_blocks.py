"""Packed blocks mean what their bits say, exactly and on any path through them."""

import numpy as np
import pytest
import torch

from helpers.gguf_blocks import PACK
from swarm.model.gguf import layout
from swarm.model.gguf.blocks import WIDEN
from swarm.model.gguf.layout import Blocks, widen
from swarm.model.gguf.types import TYPES

PACKED = [kind for kind, each in TYPES.items() if each.plain is None]
ROWS = 6


def numbers(columns: int, seed: int = 0) -> np.ndarray:
    """Random numbers, some of them large; one block is nearly zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((ROWS, columns)).astype(np.float32)
    values[0] *= 100
    values[1] *= 1e-3
    return values


def test_every_packed_type_has_a_packer_of_the_tests() -> None:
    assert set(PACKED) == set(PACK)
    assert set(WIDEN) == {name for name, _, _ in PACK.values()}


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: TYPES[kind].name)
def test_blocks_stand_for_the_numbers_that_they_were_packed_for(kind: int) -> None:
    name, block, pack = PACK[kind]
    assert (TYPES[kind].name, TYPES[kind].block) == (name, block)
    values = numbers(block)
    packed, meant = pack(values)
    assert packed.shape[1] == TYPES[kind].block_bytes
    widened = WIDEN[name](torch.from_numpy(packed))
    assert widened.dtype == torch.float32
    assert torch.equal(widened, torch.from_numpy(meant))
    # the packer itself is sound: what it stands for is near what was given
    spread = np.abs(values).max(axis=1, keepdims=True)
    assert (np.abs(meant - values) <= spread * 0.36).all()


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: TYPES[kind].name)
def test_rows_are_widened_in_pieces_and_rounded_once(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, block, pack = PACK[kind]
    columns = 2 * block
    packed, meant = pack(numbers(columns).reshape(-1, block))
    rows = torch.from_numpy(packed.reshape(ROWS, -1))
    own = Blocks(TYPES[kind])
    assert own.shapes((ROWS, columns))["weight"].shape == tuple(rows.shape)
    assert own.nbytes((ROWS, columns)) == rows.nbytes
    expected = torch.from_numpy(meant.reshape(ROWS, columns))
    for chunk in (1, 3 * block, 1 << 20):
        monkeypatch.setitem(layout.CHUNK, "cpu", chunk)
        for dtype in (torch.float32, torch.bfloat16):
            widened = own.widen({"weight": rows}, (ROWS, columns), dtype)
            assert torch.equal(widened, expected.to(dtype))


def test_experts_are_widened_like_their_rows() -> None:
    packed, meant = PACK[2][2](numbers(64).reshape(-1, 32))
    experts = torch.from_numpy(packed.reshape(2, ROWS // 2, -1))
    expected = torch.from_numpy(meant.reshape(2, ROWS // 2, 64))
    assert torch.equal(widen(experts, TYPES[2], torch.float32), expected)
