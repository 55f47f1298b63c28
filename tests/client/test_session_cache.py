"""A text that goes on from another one is the same as ever, and what was said before is not
computed again."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from helpers.loopback import eventually
from helpers.swarm_in_process import NEW, PROMPT, STAGES, Material, Swarm, swarm_of
from swarm.client.session_cache import SessionCache, common
from swarm.errors import PromptTooLong
from swarm.outputs import Generation

REMARK = [11, 12, 13]
WAYS = [{"window": 0}, {"window": 4, "depth": 1}, {}, {"standby": True}]
WAY_NAMES = ["plain", "window of 4", "streaming", "with others standing by"]


def next_prompt(said: Generation) -> list[int]:
    return [*PROMPT, *said.token_ids, *REMARK]


@pytest.fixture(scope="module")
def next_text(material: Material, expected: tuple[int, ...]) -> tuple[int, ...]:
    """What a chain that knows nothing says next."""

    async def write() -> Generation:
        async with swarm_of(lambda: Swarm(material), *STAGES) as swarm:
            return await swarm.write(prompt=[*PROMPT, *expected, *REMARK])

    return asyncio.run(write()).token_ids


def sessions(swarm: Swarm) -> int:
    return sum(not peer.idle for peer in swarm.up)


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
async def test_the_next_turn_goes_on_where_the_last_one_ended(
    way: dict[str, Any], make: Callable[[], Swarm], next_text: tuple[int, ...]
) -> None:
    spares = STAGES if way.get("standby") else []
    async with swarm_of(make, *STAGES, *spares) as swarm:
        first = await swarm.write(keep=True, **way)
        second = await swarm.write(prompt=next_prompt(first), keep=True, **way)
        third = await swarm.write(prompt=[*next_prompt(first), *second.token_ids, *REMARK], **way)
        assert second.token_ids == next_text
        # the third did not ask
        assert (first.stats.cached_tokens, third.stats.cached_tokens) == (0, 0)
        assert second.stats.cached_tokens == len(PROMPT) + NEW - 1
        # else what was sent ahead in vain weighs more than these few tokens
        if not way.get("window", 1):
            assert second.stats.bytes_sent < third.stats.bytes_sent
        assert [stop.peer_id for stop in second.route] == [stop.peer_id for stop in first.route]


async def test_a_text_does_not_go_on_from_that_of_another_owner(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        first = await swarm.write(keep=True, owner="me")
        for owner in ("you", None):
            other = await swarm.write(prompt=next_prompt(first), keep=True, owner=owner)
            assert other.stats.cached_tokens == 0
        mine = await swarm.write(prompt=next_prompt(first), keep=True, owner="me")
        assert mine.stats.cached_tokens == len(PROMPT) + NEW - 1


async def test_texts_whose_owner_is_not_known_go_on_from_each_others_alone(
    make: Callable[[], Swarm],
) -> None:
    """A gateway without keys must not have every turn of a conversation read again."""
    async with swarm_of(make, *STAGES) as swarm:
        first = await swarm.write(keep=True, owner=None)
        for owner in ("you", ""):
            other = await swarm.write(prompt=next_prompt(first), keep=True, owner=owner)
            assert other.stats.cached_tokens == 0
        next_one = await swarm.write(prompt=next_prompt(first), keep=True, owner=None)
        assert next_one.stats.cached_tokens == len(PROMPT) + NEW - 1


async def test_a_peer_that_dies_in_the_next_turn_is_replaced(
    make: Callable[[], Swarm], next_text: tuple[int, ...]
) -> None:
    async def strike(swarm: Swarm, stream: Any) -> None:
        peer = swarm.serving(stream, 1)
        swarm.up.remove(peer)
        await peer.die()

    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        first = await swarm.write(keep=True)
        second = await swarm.write(strike, prompt=next_prompt(first), keep=True)
        assert second.token_ids == next_text
        assert second.stats.cached_tokens
        assert second.stats.failovers


async def test_a_session_whose_peer_left_is_not_taken(
    make: Callable[[], Swarm], next_text: tuple[int, ...]
) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        stream = swarm.stream(keep=True)
        async for _ in stream:
            pass
        peer = swarm.serving(stream, 2)
        swarm.up.remove(peer)
        await peer.die()
        second = await swarm.write(prompt=next_prompt(stream.result), keep=True)
        assert (second.token_ids, second.stats.cached_tokens, second.stats.failovers) == (
            next_text,
            0,
            (),
        )


async def test_only_what_begins_with_all_of_it_goes_on(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        first = await swarm.write(keep=True)
        held = [*PROMPT, *first.token_ids[:-1]]
        for other in ([*PROMPT, *REMARK], held, [PROMPT[0] + 1, *held[1:], *REMARK]):
            assert (await swarm.write(prompt=other, max_new_tokens=2)).stats.cached_tokens == 0
        assert len(swarm.kept) == 1
        # another last token
        again = await swarm.write(prompt=[*held, *REMARK], max_new_tokens=2, keep=True)
        assert again.stats.cached_tokens == len(held)


async def test_a_text_too_long_for_the_session_or_the_model_leaves_it_where_it_is(
    make: Callable[[], Swarm],
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        first = await swarm.write(keep=True)
        with pytest.raises(PromptTooLong):
            await swarm.write(prompt=[*next_prompt(first), *REMARK * 1000], keep=True)
        assert await swarm.kept.find(next_prompt(first), 1 << 20, owner="") is None
        assert (
            await swarm.write(prompt=next_prompt(first), max_new_tokens=2, keep=True)
        ).stats.cached_tokens


async def test_nothing_is_kept_that_nobody_asked_for_or_that_has_failed(
    make: Callable[[], Swarm],
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await swarm.write()
        async for _ in (pieces := swarm.stream(keep=True).__aiter__()):
            break
        await pieces.aclose()
        assert len(swarm.kept) == 0
        await eventually(lambda: sessions(swarm) == 0)


async def test_what_nobody_takes_is_closed_after_a_while_and_of_many_the_oldest(
    make: Callable[[], Swarm],
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        swarm.kept = SessionCache(swarm.router.trust, keep_s=0.2, most=2)
        for last in (5, 6, 7):
            await swarm.write(prompt=[*PROMPT, last], keep=True, max_new_tokens=1)
            assert len(swarm.kept) <= 2
        await eventually(lambda: len(swarm.kept) == 0 and sessions(swarm) == 0)


def test_the_beginning_that_two_texts_have_in_common() -> None:
    texts = ((), (1,), (1, 2, 3), (1, 2, 4, 5), (2, 2, 3), tuple(range(999)))
    for one in texts:
        for other in texts:
            count = common(one, list(other))
            assert one[:count] == other[:count]
            assert one[count : count + 1] != other[count : count + 1] or not one[count:]
