import torch

from swarm.model.device import upload


def test_what_is_uploaded_arrives_whole() -> None:
    tensor = torch.arange(6).reshape(2, 3)
    for name in ("cpu", *["cuda"] * torch.cuda.is_available()):
        there = upload(tensor, torch.device(name))
        assert there.device.type == name
        assert torch.equal(there.cpu(), tensor)
