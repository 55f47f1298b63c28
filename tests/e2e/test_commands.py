"""The commands of the README, run as a user runs them."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from warm import orphans_become_our_children

from helpers.loopback import children, eventually
from swarm.client.sync import BlockingClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm
from swarm.demo.problems import problems

PROMPT = next(iter(problems(77, held_out=True))).prompt
HANG_S = 300.0
STATS = {
    *(
        "prompt_tokens",
        "new_tokens",
        "seconds",
        "tokens_per_second",
        "time_to_first_token_ms",
        "loops",
        "loop_ms",
    ),
    *("drafted_tokens", "accepted_tokens", "draft_acceptance_rate", "mean_acceptance_length"),
    *("bytes_sent", "bytes_received", "verification", "finish_reason"),
}

pytestmark = pytest.mark.usefixtures("warmly")


@pytest.fixture
def running() -> Iterator[Callable[[], int]]:
    """Return how to count the processes that a test has started, whatever their parents."""
    with orphans_become_our_children():
        before = children().keys()
        yield lambda: len(children().keys() - before)


async def test_generate_status_and_the_sdk_agree() -> None:
    async with LocalSwarm(TARGET, [(0, 5), (3, 8)]) as swarm:
        where = ("--bootstrap", swarm.bootstrap, "--network", swarm.network.name)
        as_json, text, status = await asyncio.gather(
            _swarm("generate", TARGET, PROMPT, "--draft", DRAFT, "--json", *where),
            _swarm("generate", TARGET, PROMPT, "--draft", "none", *where),
            _swarm("status", "--json", *where),
        )
        said = json.loads(as_json)
        assert set(said) == {"text", "token_ids", "route", "stats"}
        assert set(said["stats"]) >= STATS
        assert said["stats"]["verification"] == "exact"
        assert said["stats"]["finish_reason"] == "stop"
        assert said["stats"]["drafted_tokens"] > said["stats"]["accepted_tokens"] > 0
        # The second peer's span begins before the first one's ends: the chain leaves one or enters
        # one in the middle.
        (begin, hand_over), (taken_over, end) = (stop["layers"] for stop in said["route"])
        assert (begin, end) == (0, 8)
        assert 3 <= hand_over == taken_over <= 5
        assert all(
            stop["rtt_ms"] > 0 and stop["peer_id"].startswith("12D3KooW") for stop in said["route"]
        )

        assert text == said["text"] + "\n"

        (report,) = json.loads(status)
        assert (report["model"], report["model_layers"], report["missing"]) == (TARGET, 8, [])
        assert [peer["layers"] for peer in report["peers"]] == [[0, 5], [3, 8]]

        generation, pieces, layers = await asyncio.to_thread(_blocking, swarm)
        assert generation == said["text"]
        assert pieces == said["text"]
        assert layers == [(0, 5), (3, 8)]


def _blocking(swarm: LocalSwarm) -> tuple[str, str, list[tuple[int, int]]]:
    with BlockingClient(locate(TARGET), draft=locate(DRAFT), network=swarm.network) as client:
        return (
            client.generate(PROMPT).text,
            "".join(piece.text for piece in client.stream(PROMPT)),
            [peer.layers for peer in client.run(client.client.look()).peers],
        )


async def test_demo_compares_three_ways_of_decoding_and_stops_everything(
    running: Callable[[], int],
) -> None:
    options = ("--peers", "2", "--link-ms", "20", "--json")
    said = json.loads(await _swarm("demo", *options, "--prompt", PROMPT))
    assert said["link_emulated"] is True
    (comparison,) = said["prompts"]
    assert comparison["identical"]
    plain, one, streaming = (way["stats"] for way in comparison["ways"].values())
    assert set(plain) >= STATS
    # Three links of 20 ms: no loop can be shorter, or the delay would not be emulated at all.
    assert plain["loop_ms"] >= 60
    assert one["in_flight_max"] == 1 < streaming["in_flight_max"]
    assert one["loops"] < plain["loops"]
    assert all(said["speedup"][way] > 1 for way in list(said["speedup"])[1:])
    await _all_have_ended(running)


async def test_an_interrupted_demo_leaves_no_process_behind(running: Callable[[], int]) -> None:
    demos = await asyncio.gather(_started_demo(), _started_demo())
    assert running() > 3 * len(demos)  # each: it, a bootstrap node and a peer, both with a daemon
    for number, process in zip((signal.SIGINT, signal.SIGTERM), demos, strict=True):
        process.send_signal(number)
    for number, process in zip((signal.SIGINT, signal.SIGTERM), demos, strict=True):
        _, err = await asyncio.wait_for(process.communicate(), HANG_S)
        assert process.returncode == 128 + number
        assert "Traceback" not in err.decode()
    await _all_have_ended(running, demos=len(demos))


async def _started_demo() -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarm.cli", "demo", "--peers", "1", "--link-ms", "200"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readuntil(b"Found through the DHT"), HANG_S)
    return process


async def _all_have_ended(running: Callable[[], int], demos: int = 1) -> None:
    # what forked a demo's processes ends by itself a moment later
    assert running() <= demos
    await eventually(lambda: not running())


async def _swarm(*arguments: str) -> str:
    """Return the standard output of a command that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarm.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), HANG_S)
    assert process.returncode == 0, err.decode()
    return out.decode()
