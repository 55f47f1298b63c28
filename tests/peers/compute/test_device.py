import pytest
import torch

from peers.compute.device import NoSuchDevice, choose_device


def test_auto_is_a_device_that_works() -> None:
    device = choose_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(NoSuchDevice) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "--device cpu" in str(caught.value)
