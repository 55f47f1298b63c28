"""The dtype of a draft model: the fastest one, as measured, unless the user names one."""

from itertools import chain, repeat

import pytest
import torch

from swarm.errors import ConfigError
from swarm.model.compute import SMALL_WEIGHTS, ComputeOptions
from swarm.model.device import NoSuchDevice
from swarm.model.drafts import dtype as module
from swarm.model.drafts.dtype import (
    CANDIDATES,
    WORTH,
    DraftPlacement,
    check_compute,
    fastest_on_cpu,
    place,
)

CPU = torch.device("cpu")


def clock_of(*durations_s: float):
    """Return a clock by which one run after the other takes this long, the last one for ever."""
    now = 0.0
    lengths = chain(durations_s, repeat(durations_s[-1]))
    running = False

    def clock() -> float:
        nonlocal now, running
        if running:
            now += next(lengths)
        running = not running
        return now

    return clock


@pytest.mark.parametrize(
    ("times", "dtype"),
    [
        ((1.0, 1.0, 1.0), "float32"),
        ((1.0, 0.3, 0.3), "int8"),
        ((1.0, 0.3, 0.31 / WORTH), "int8"),  # fewer bytes
        ((1.0, 0.5, 0.1), "bfloat16"),
        ((1.0, 9.0, 0.5), "bfloat16"),  # int8 without a processor that has its products
        ((1.0, 0.5, 9.0), "int8"),  # bfloat16 likewise
        ((1.0, 1.01 / WORTH, 1.01 / WORTH), "float32"),  # not worth the rounding
    ],
)
def test_the_fastest_dtype_is_taken_if_it_is_worth_the_rounding(
    times: tuple[float, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_WEIGHTS", 1000)
    assert fastest_on_cpu(64, clock_of(*times)) == dtype  # each run is as long as `MEASURE_S`


@pytest.mark.parametrize(
    ("times_s", "dtype"), [([2.0, 1.0], torch.bfloat16), ([1.0, 2.0], torch.float32)]
)
def test_keys_and_values_take_the_dtype_in_which_attention_is_faster(
    times_s: list[float], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(works, repeats: int) -> list[float]:
        for work in works:
            work()
        return times_s

    monkeypatch.setattr(module, "least_in_turn_s", measured)
    assert module.fastest_cache_dtype.__wrapped__() == dtype


def test_every_dtype_is_measured_on_the_same_product() -> None:
    x = torch.randn(8, 64)
    block = torch.randn(16, 64)
    exact = x @ block.repeat(2, 1).T
    for product_of in CANDIDATES.values():
        out = product_of(block, 2)(x).float()
        assert out.shape == (8, 32)
        assert (out - exact).norm() / exact.norm() < 0.02


def test_a_small_model_and_a_named_dtype_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(columns: int) -> str:
        raise AssertionError("it is measured")

    monkeypatch.setattr(module, "fastest_on_cpu", measured)
    on_cpu = ComputeOptions(device="cpu")
    assert place(on_cpu, SMALL_WEIGHTS - 1, 64) == DraftPlacement(CPU, "float32")
    named = ComputeOptions(device="cpu", draft_dtype="int8")
    assert place(named, 10 * SMALL_WEIGHTS, 64) == DraftPlacement(CPU, "int8")
    with pytest.raises(AssertionError, match="measured"):
        place(on_cpu, SMALL_WEIGHTS, 64)


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_drafts_in_16_bits_if_it_computes_in_them(
    supported: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(module, "choose_device", lambda name, weights: gpu)
    monkeypatch.setattr(module, "has_bfloat16", lambda device: supported)
    assert place(ComputeOptions(), SMALL_WEIGHTS, 64) == DraftPlacement(gpu, dtype)


def test_a_device_or_a_library_that_is_missing_is_noticed_first() -> None:
    check_compute(ComputeOptions(draft_dtype="int8"))
    for options in (ComputeOptions(device="cuda:99"), ComputeOptions(draft_device="cuda:99")):
        with pytest.raises(NoSuchDevice, match="'cuda:99'"):
            check_compute(options)


def test_nf4_without_its_libraries_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda *_: False)
    with pytest.raises(ConfigError, match=r"bitsandbytes.*pip install 'swarm\[quant\]'") as caught:
        check_compute(ComputeOptions(device="cpu", draft_dtype="nf4"))
    assert caught.value.field == "draft_dtype"
