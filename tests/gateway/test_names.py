"""Models are known by their names: no reply reveals where their files are."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from helpers.gateway_in_process import chat
from helpers.swarm_in_thread import ThreadedSwarm
from swarm import SwarmClient
from swarm.demo import TARGET, locate
from swarm.errors import ModelNotFound
from swarm.gateway import availability
from swarm.gateway.errors import error_reply
from swarm.gateway.server import Settings, serving
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import QUANTIZATIONS

PATHS = ["/v1/models", "/v1/models/other", "/health", "/ready", "/metrics", "/", "/swarm", "/speed"]


async def test_no_answer_says_where_the_files_are(
    threaded: ThreadedSwarm, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(availability, "PATIENCE_S", 1.0)
    folder = Path(locate(TARGET))
    async with SwarmClient(str(folder), network=threaded.network) as client:
        peers = [peer.peer_id for peer in (await client.look()).peers]
    everybody = SwarmClient(str(folder), network=threaded.network, block=peers)
    async with (
        everybody,
        serving([everybody], Settings(port=0)) as url,
        aiohttp.ClientSession() as http,
    ):
        told = []
        for path in PATHS:
            async with http.get(url + path) as response:
                told.append(await response.text())

        async def completion(body: dict[str, object]) -> str:
            async with http.post(f"{url}/v1/chat/completions", json=body) as response:
                return await response.text()

        bodies = (chat(), chat(stream=True), chat(model="other"), {"model": TARGET, "nothing": 1})
        told += await asyncio.gather(*map(completion, bodies))  # two of them wait for peers
        async with http.get(f"{url}/events/swarm") as response:
            told.append((await response.content.readline()).decode())
    assert f"no peer serves {TARGET};" in told[PATHS.index("/ready")]
    assert f"no peer serves {TARGET};" in told[len(PATHS)]
    assert json.loads(told[len(PATHS)])["error"]["code"] == "missing_layers"
    assert not [each for each in told if str(folder.parent) in each or str(Path.home()) in each]


@pytest.mark.parametrize("quantization", [None, *QUANTIZATIONS.values()])
def test_a_quantized_model_has_the_name_of_the_plain_one(quantization):
    checkpoint = Checkpoint.open(locate(TARGET), quantization)
    assert checkpoint.plain_name == TARGET


def test_what_is_wrong_with_files_here_is_for_the_log():
    reply = error_reply(ModelNotFound("/home/somebody/model"))
    assert (reply.status, reply.code) == (500, "internal_error")
    assert "/home" not in reply.message
