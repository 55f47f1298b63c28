"""The demonstration's swarm is not started for a client that cannot compute."""

import pytest

from swarm.demo import swarm
from swarm.demo.swarm import demo_swarm
from swarm.model.compute import ComputeOptions
from swarm.model.device import NoSuchDevice


async def test_a_device_that_is_not_here_is_noticed_before_a_process_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swarm, "LocalSwarm", lambda *_: pytest.fail("processes are started"))
    with pytest.raises(NoSuchDevice, match="'cuda:99'"):
        async with demo_swarm(2, 0.0, ComputeOptions(device="cuda:99")):
            pass
