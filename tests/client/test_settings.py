"""What a client is set up with is checked at once, and its names are the SDK's."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from helpers.feature_heads import behind_the_last, save_target
from swarm import BlockingClient, ClientOptions, SwarmClient
from swarm.client.settings import ClientSettings
from swarm.config import Network
from swarm.errors import ConfigError, UnsupportedModel
from swarm.model.device import NoSuchDevice

NETWORK = Network("test")


def test_the_options_of_the_client_are_those_that_it_documents() -> None:
    names = [field.name for field in fields(ClientSettings)]
    assert names == ["model", *ClientOptions.__annotations__]
    documented = inspect.getdoc(SwarmClient) or ""
    assert [name for name in names if f"    {name}: " not in documented] == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("audit_rate", 1.5),
        ("audit_rate", float("nan")),
        ("speaks_for", 0),
        ("speaks_for", 10**9),
        ("quantization", "int7"),
        ("device", "gpu"),
        ("draft_device", "cuda:x"),
        ("draft_dtype", "int7"),
        ("draft_vocab", 7),
    ],
)
@pytest.mark.parametrize("client", [SwarmClient, BlockingClient])
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    client: type, option: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=str(value)):
        client("no/such-model", network=NETWORK, **{option: value})


def test_an_option_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="'drafts'"):
        SwarmClient("model", network=NETWORK, drafts="draft")  # type: ignore[call-arg]


async def test_a_device_that_is_not_here_is_noticed_before_a_network_is_entered(
    target: str, draft: str
) -> None:
    for client in (
        SwarmClient(target, network=NETWORK, device="cuda:99"),
        SwarmClient(target, draft=draft, network=NETWORK, draft_device="cuda:99"),
    ):
        with pytest.raises(NoSuchDevice, match="'cuda:99'"):
            await client.check_models()


async def test_a_head_inside_the_model_s_own_checkpoint_is_looked_for_there(
    target: str, tmp_path: Path
) -> None:
    own = save_target(tmp_path / "target", behind_the_last(4))
    await SwarmClient(str(own), draft="mtp", network=NETWORK).check_models()
    with pytest.raises(UnsupportedModel, match="no layer that predicts further tokens"):
        await SwarmClient(target, draft="mtp", network=NETWORK).check_models()
