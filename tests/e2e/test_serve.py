"""``swarm demo --serve`` and ``swarm serve``, run as a user runs them."""

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from helpers.loopback import children
from swarm.demo import TARGET

HANG_S = 300.0
KEY = "k" * 32
CHAT = {
    "model": TARGET,
    "messages": [{"role": "user", "content": "Mia has 12 coins."}],
    "max_tokens": 8,
}

pytestmark = pytest.mark.usefixtures("warmly")


async def test_from_one_command_to_a_chat_and_a_second_gateway_over_the_same_swarm(
    tmp_path: Path,
) -> None:
    async with running("demo", "--serve", "--peers", "2", "--link-ms", "1", "--port", "0") as demo:
        entry = _found(await demo.until(b"--bootstrap"), r"(--network \S+ --bootstrap \S+)")
        url = _found(await demo.until(b"curl"), r"curl (http://\S+)/v1/")
        async with aiohttp.ClientSession() as http:
            async with http.get(url) as page:
                assert page.content_type == "text/html"
            async with http.post(f"{url}/v1/chat/completions", json=CHAT) as response:
                reply = await response.json()
                assert reply["usage"]["completion_tokens"] == 8, reply
            async with http.get(f"{url}/ready") as response:
                assert response.status == 200
            (tmp_path / "keys").write_text(KEY)
            where = (*entry.split(), "--api-keys", str(tmp_path / "keys"))
            async with running(
                "serve", TARGET, *where, "--port", "0", "--host", "0.0.0.0", "--json"
            ) as second:
                said = json.loads(await second.until(b"}"))
                assert said["models"] == [TARGET]
                asked = f"{said['url']}/v1/chat/completions"
                async with http.post(asked, json=CHAT) as response:
                    assert response.status == 401
                async with http.post(
                    asked, json=CHAT, headers={"Authorization": f"Bearer {KEY}"}
                ) as response:
                    assert (await response.json())["usage"]["completion_tokens"] == 8
                assert await second.end(signal.SIGTERM) == 0
        assert await demo.end(signal.SIGINT) == 0
    assert not children()


class Running:
    """A command that runs until it is stopped."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, words: bytes) -> str:
        """Return the output up to the line with these words."""
        assert self._process.stdout is not None
        said = b""
        while words not in said:
            line = await asyncio.wait_for(self._process.stdout.readline(), HANG_S)
            assert line, said
            said += line
        return said.decode()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code; there must be no complaint on standard error."""
        self._process.send_signal(number)
        _, complaints = await asyncio.wait_for(self._process.communicate(), HANG_S)
        assert b"Traceback" not in complaints, complaints.decode()
        assert self._process.returncode is not None
        return self._process.returncode


@contextlib.asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarm.cli", *arguments), stdout=pipe, stderr=pipe
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _found(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]
