"""Every command checks the model before it enters a network, and ends with exit code 5."""

import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from helpers.loopback import WORDS, soon, tokenizer_of
from helpers.models import ARCHITECTURES
from peers.cli import app as peer_app
from peers.options import PeerOptions
from peers.server import serve
from swarm.cli.main import app, guard
from swarm.cli.serve import _serve as gateway
from swarm.client.client import SwarmClient
from swarm.client.status import look, routes
from swarm.config import Network
from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.gateway.server import Settings
from swarm.network.dht.directory import Directory

NOWHERE = Network(
    "test", ("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",)
)
SWARM = (
    ("generate", "MODEL", "Hello"),
    ("generate", "demo-target", "Hello", "--draft", "MODEL"),
    ("chat", "MODEL"),
    ("serve", "MODEL"),
    ("serve", "demo-target", "--draft", "MODEL"),
    ("status", "MODEL"),
    ("bench", "MODEL", "--draft", "demo-draft"),
    ("bench", "demo-target", "--draft", "MODEL"),
    ("eval", "--model", "MODEL"),
    ("eval", "--draft", "MODEL"),
)
PEER = (("join", "MODEL"), ("install-service", "join", "MODEL"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    tokenizer_of(WORDS).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def truncated(model: Path) -> tuple[Path, str]:
    shard = sorted(model.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-100])
    return model, shard.name


def without_layers(model: Path) -> tuple[Path, str]:
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 0}))
    return model, "num_hidden_layers"


def gguf(model: Path) -> tuple[Path, str]:
    file = model / "model.gguf"
    file.write_bytes(b"GGUF")
    return file, "model.gguf ends within its header"


@pytest.mark.parametrize("damage", [truncated, without_layers, gguf])
@pytest.mark.parametrize("arguments", [*SWARM, *PEER], ids=" ".join)
def test_a_damaged_model_is_told_before_the_network(
    arguments: tuple[str, ...],
    damage: object,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No bootstrap node is configured, which would be an error, too."""
    assert callable(damage)
    path, words = damage(model)
    program = "swarm-peer" if arguments in PEER else "swarm"
    monkeypatch.setattr(
        sys, "argv", [program, *(str(path) if each == "MODEL" else each for each in arguments)]
    )
    assert guard(peer_app if arguments in PEER else app, program) == 5
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: Model ")
    assert words in said


@pytest.fixture
def unsupported(tmp_path: Path) -> str:
    """Save a valid model of a class that cannot be served."""
    ARCHITECTURES["xlstm"].save(tmp_path / "xlstm")
    tokenizer_of(WORDS).save_pretrained(tmp_path / "xlstm")
    return str(tmp_path / "xlstm")


async def test_a_model_of_an_unsupported_class_is_told_before_the_network(
    unsupported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enter(*_: object, **__: object) -> None:
        pytest.fail("a network is entered")

    monkeypatch.setattr(Directory, "join", enter)
    with pytest.raises(UnsupportedModel):
        await SwarmClient(unsupported, network=NOWHERE).__aenter__()
    options = PeerOptions(
        unsupported, None, NOWHERE, None, "127.0.0.1", 0, None, torch.device("cpu"), None
    )
    with pytest.raises(UnsupportedModel):
        await serve(options, None, lambda news: None)


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """A hub that has no model; the paths that it is asked for."""
    asked: list[str] = []

    async def nothing(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.json_response({}, status=404, headers={"X-Error-Code": "RepoNotFound"})

    async with RawTestServer(nothing) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", str(server.make_url("")))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield asked


async def test_a_model_that_the_hub_does_not_have_is_told_before_the_network(
    hub: list[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enter(*_: object, **__: object) -> None:
        pytest.fail("a network is entered")

    monkeypatch.setattr(Directory, "join", enter)
    client = partial(SwarmClient, network=NOWHERE)
    options = PeerOptions(
        "org/none", None, NOWHERE, None, "127.0.0.1", 0, None, torch.device("cpu"), None
    )
    several = [client(str(model)), client("org/none")]
    for use in (
        client("org/none").__aenter__(),
        client(str(model), draft="org/none").__aenter__(),
        gateway(several, Settings(port=0), False),
        serve(options, None, lambda news: None),
        look(NOWHERE, "org/none"),
        routes(NOWHERE, "org/none"),
    ):
        hub.clear()
        with pytest.raises(ModelNotFound, match="org/none"):
            await soon(use)
        assert hub


async def test_a_draft_that_is_cached_does_not_need_the_hub(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    await SwarmClient(str(model), draft="org/cached", network=NOWHERE).check_models()


async def test_the_state_of_a_damaged_model_is_not_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enter(*_: object, **__: object) -> None:
        pytest.fail("a network is entered")

    monkeypatch.setattr(Directory, "join", enter)
    for ask in (look, routes):
        with pytest.raises(DamagedModel, match="gguf"):
            await ask(NOWHERE, str(gguf(model)[0]))
