"""How a gateway starts and stops."""

import asyncio

import openai
import pytest

from helpers.gateway_in_process import SPANS, InProcessClient, chat
from helpers.loopback import soon
from helpers.swarm_in_process import Swarm, swarm_of
from swarm.errors import CannotListen, ConfigError
from swarm.gateway.keys import ApiKeys
from swarm.gateway.server import Settings, serving


async def test_running_answers_end_before_the_gateway_does(demo):
    async with swarm_of(
        lambda: Swarm(demo), *SPANS, cache_tokens=4096, max_positions=1024
    ) as swarm:
        tail = swarm.up[1].span
        async with serving([InProcessClient(swarm)], Settings(port=0)) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="no key", max_retries=0)
            tail.entered.clear()
            asking = asyncio.create_task(client.chat.completions.create(**chat()))
            await soon(asyncio.to_thread(tail.entered.wait, 20))
        assert (await soon(asking)).choices[0].finish_reason == "stop"
        await client.close()


async def test_answers_that_take_too_long_are_cut(demo):
    async with swarm_of(
        lambda: Swarm(demo), *SPANS, cache_tokens=4096, max_positions=1024
    ) as swarm:
        tail = swarm.up[1].span
        async with serving([InProcessClient(swarm)], Settings(port=0, grace_s=0.1)) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="no key", max_retries=0)
            tail.go_on.clear()
            tail.entered.clear()
            asking = asyncio.create_task(client.chat.completions.create(**chat()))
            await soon(asyncio.to_thread(tail.entered.wait, 20))
        with pytest.raises(openai.APIConnectionError):
            await soon(asking)
        await client.close()


async def test_an_address_that_is_taken_is_one_sentence(served):
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(CannotListen, match="give another --host or --port"):
        async with serving([InProcessClient(served.swarm)], Settings(port=port)):
            pass


async def test_two_models_of_one_name_are_refused(served):
    with pytest.raises(ConfigError, match="two have one name"):
        async with serving([InProcessClient(served.swarm)] * 2, Settings(port=0)):
            pass


@pytest.mark.parametrize(
    ("host", "keys", "is_open"),
    [
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("0.0.0.0", (), True),
        ("box", (), True),
        ("0.0.0.0", ("k" * 16,), False),
    ],
)
def test_it_is_known_whether_anybody_may_ask(host, keys, is_open):
    assert Settings(host=host, keys=ApiKeys(keys)).open_to_all is is_open
