"""Outputs of layers travel in eight bits or exactly, in bounded parts; broken ones are refused."""

import pytest
import torch
from pydantic import ValidationError

from swarm.wire import taps
from swarm.wire.taps import MAX_TAPS, LayerOutputs, TapTerms

OUTPUTS = torch.randn(5, 3, 64, generator=torch.Generator().manual_seed(0))


def unpacked(parts: tuple[LayerOutputs, ...]) -> torch.Tensor:
    return torch.cat([part.unpack() for part in parts])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_come_back_as_they_were(dtype: torch.dtype) -> None:
    outputs = OUTPUTS.to(dtype)
    assert unpacked(LayerOutputs.pack(outputs, float8=False)).equal(outputs.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_keep_outliers_and_what_stands_beside_them(dtype: torch.dtype) -> None:
    """Inner states have a few values that are a thousand times larger than the others."""
    outputs = OUTPUTS.clone()
    outputs[:, :, 7] *= 1000
    outputs = outputs.to(dtype)
    parts = LayerOutputs.pack(outputs, float8=True)
    back = unpacked(parts)
    # half a step of three bits of mantissa, and of the smallest numbers that have all of them
    steps = outputs.float().abs() / 16
    steps += outputs.float().abs().amax(-1, keepdim=True) / 448 / 64 / 16
    assert bool(((back - outputs.float()).abs() <= steps).all())
    assert sum(len(part.data) for part in parts) == outputs.numel()


def test_zeros_are_zeros() -> None:
    assert not unpacked(LayerOutputs.pack(torch.zeros(1, 2, 4), float8=True)).any()


@pytest.mark.parametrize("float8", [True, False])
def test_many_outputs_come_in_parts(float8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taps, "MAX_TAPPED_BYTES", 2 * 3 * 64 * (1 if float8 else 4))
    parts = LayerOutputs.pack(OUTPUTS, float8)
    assert [part.tokens for part in parts] == [2, 2, 1]
    assert unpacked(parts).allclose(OUTPUTS, atol=0.2)


def test_a_token_of_the_widest_model_has_room_and_no_message_is_larger() -> None:
    (part,) = LayerOutputs.pack(torch.zeros(1, taps.MAX_TAPS, taps.MAX_HIDDEN_SIZE), float8=False)
    assert len(part.data) == taps.MAX_TAPPED_BYTES
    larger = part.model_dump() | {"tokens": 2, "data": 2 * part.data}
    with pytest.raises(ValueError, match="at most 1048576 bytes"):
        LayerOutputs.model_validate(larger)


@pytest.mark.parametrize("float8", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"data": b""},
        {"scales": b"0" * 7},
        {"tokens": 4},
        {"layers": 2},
        {"hidden": 63},
        {"dtype": "float16"},
        {"dtype": "float8_e5m2"},
        {"layers": MAX_TAPS + 1},
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(change: dict[str, object], float8: bool) -> None:
    (part,) = LayerOutputs.pack(OUTPUTS, float8)
    with pytest.raises(ValidationError):
        LayerOutputs.model_validate({**part.model_dump(), **change})


@pytest.mark.parametrize("layers", [(), (3, 3), (4, 2), (-1,), tuple(range(MAX_TAPS + 1))], ids=str)
def test_layers_ascend(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        TapTerms(layers=layers)


def test_each_peer_has_its_own() -> None:
    terms = TapTerms(layers=(1, 4, 5), float8=False)
    assert terms.within(0, 4) == TapTerms(layers=(1,), float8=False)
    assert terms.within(4, 6) == TapTerms(layers=(4, 5), float8=False)
    assert terms.within(2, 4) is None
