import pytest
import torch

from swarm.model.compute import SMALL_WEIGHTS
from swarm.model.device import NoSuchDevice, choose_device, has_bfloat16, upload


def test_what_is_uploaded_arrives_whole() -> None:
    tensor = torch.arange(6).reshape(2, 3)
    for name in ("cpu", *["cuda"] * torch.cuda.is_available()):
        there = upload(tensor, torch.device(name))
        assert there.device.type == name
        assert torch.equal(there.cpu(), tensor)


def test_auto_is_a_device_that_works() -> None:
    device = choose_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("weights", "device"),
    [
        (None, "cuda"),  # not known
        (SMALL_WEIGHTS - 1, "cpu"),
        (SMALL_WEIGHTS, "cuda"),
        (1_000_000_000, "cpu"),  # more than there is room for
    ],
)
def test_auto_is_a_gpu_for_large_models_that_fit(
    weights: int | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (4_000_000_000, 8_000_000_000))
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))  # whatever the device
    assert choose_device("auto", weights) == torch.device(device)


def test_the_cpu_has_bfloat16_and_no_device_that_is_missing_has() -> None:
    assert has_bfloat16(torch.device("cpu"))
    assert torch.cuda.is_available() or not has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(NoSuchDevice) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "--device cpu" in str(caught.value)
