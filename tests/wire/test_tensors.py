"""Hidden states cross the wire bit by bit, and a tensor that exists has the size it says."""

import pytest
import torch
from pydantic import ValidationError

from swarm.wire.tensors import MAX_FRAME_TOKENS, MAX_HIDDEN_SIZE, WireTensor, dtype_name

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (256, 2), (0, 7)])
def test_a_tensor_comes_back_as_it_was(dtype, shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    unpacked = WireTensor.pack(tensor).unpack()
    assert (unpacked.dtype, unpacked.shape) == (dtype, shape)
    assert torch.equal(unpacked, tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_is_rounded_or_made_canonical(dtype):
    # every 16-bit pattern, NaNs included
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(128, -1)
    unpacked = WireTensor.pack(bits.contiguous().view(dtype)).unpack()
    assert torch.equal(unpacked.view(torch.int16), bits)


def test_layout_in_memory_does_not_matter():
    tensor = torch.arange(12.0).view(3, 4)
    assert torch.equal(WireTensor.pack(tensor.T).unpack(), tensor.T)
    assert torch.equal(WireTensor.pack(tensor[::2, 1:3]).unpack(), tensor[::2, 1:3])


def test_bytes_are_row_major_and_little_endian():
    assert (
        WireTensor.pack(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).data.hex()
        == "0000803f000000400000404000008040"
    )


def test_gradients_stay_behind():
    assert not WireTensor.pack(torch.ones(1, 2, requires_grad=True)).unpack().requires_grad


def test_an_unpacked_tensor_owns_its_memory():
    packed = WireTensor.pack(torch.zeros(2, 2))
    packed.unpack().add_(1)
    assert torch.equal(packed.unpack(), torch.zeros(2, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": bytes(23)},
        {"data": bytes(25)},
        {"data": b""},
        {"data": "0" * 24},
        {"dtype": "float64"},
        {"dtype": "float16"},
        {"tokens": -1},
        {"tokens": 2.0},
        {"tokens": True},
        {"tokens": MAX_FRAME_TOKENS + 1},
        {"hidden": 0},
        {"hidden": MAX_HIDDEN_SIZE + 1},
        {"more": 1},
    ],
)
def test_what_does_not_fit_together_is_no_tensor(wrong):
    right = {"dtype": "float32", "tokens": 2, "hidden": 3, "data": bytes(24)}
    assert WireTensor(**right).unpack().shape == (2, 3)
    with pytest.raises(ValidationError):
        WireTensor(**{**right, **wrong})


def test_only_dtypes_of_hidden_states_travel():
    assert [dtype_name(dtype) for dtype in DTYPES] == ["float32", "bfloat16", "float16"]
    with pytest.raises(KeyError):
        dtype_name(torch.int64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_seen_in_the_bytes(dtype, value):
    most = torch.finfo(dtype)
    tensor = torch.tensor(
        [[0.0, -0.0, most.max, most.min], [most.tiny, -1.0, most.smallest_normal, 2.0]], dtype=dtype
    )
    assert WireTensor.pack(tensor).is_finite
    for place in range(tensor.numel()):
        spoilt = tensor.clone()
        spoilt.view(-1)[place] = value
        assert not WireTensor.pack(spoilt).is_finite
    assert WireTensor.pack(tensor[:0]).is_finite


@pytest.mark.threat("wrong-tensor")
@pytest.mark.parametrize("defended", [True, False])
def test_bytes_that_do_not_fill_the_shape_are_refused(defended):
    short = {"dtype": "float32", "tokens": 2, "hidden": 3, "data": bytes(16)}
    if defended:
        with pytest.raises(ValidationError):
            WireTensor(**short)
    else:
        assert WireTensor.model_construct(**short).tokens == 2, (
            "unchecked, it would say that it is larger than it is"
        )
