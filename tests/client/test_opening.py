"""Texts that begin alike: the same as written alone, and what others hold is not read again."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from helpers.loopback import eventually, soon
from helpers.strikes import WAY_NAMES, WAYS, killing, when_all_stand_by
from helpers.swarm_in_process import NEW, STAGES, Material, Swarm, swarm_of
from swarm.chain.session import ChainSession
from swarm.client.generation import GenerationStream
from swarm.errors import PromptTooLong
from swarm.outputs import Generation
from swarm.wire import handshake

SHARED = [3 + i * 7 % 90 for i in range(60)]  # instructions and tools
ONE, OTHER, THIRD = [*SHARED, 11, 12, 13], [*SHARED, 21, 22], [*SHARED, 31]
FEW = 8
HOT: dict[str, Any] = {"temperature": 1.0, "seed": 7}


@pytest.fixture
def make(material: Material) -> Callable[[], Swarm]:
    """Return what makes swarms in which texts of a few tokens in common are forked."""

    def make_one() -> Swarm:
        swarm = Swarm(material)
        swarm.kept.least_shared = 16
        return swarm

    return make_one


def alone(swarm: Swarm, prompt: list[int], **options: Any) -> Any:
    """Write a text that goes on from no other."""
    return soon(swarm.write(prompt=prompt, **options))


def kept(swarm: Swarm, prompt: list[int], strike: Any = None, **options: Any) -> Any:
    """Write a text that may go on from others, and others from it."""
    return soon(swarm.write(strike, prompt=prompt, keep=True, **options))


@pytest.mark.parametrize("options", [*WAYS, HOT], ids=[*WAY_NAMES, "streaming, seeded"])
async def test_another_conversation_begins_with_what_a_kept_one_holds(
    options: dict[str, Any], make: Callable[[], Swarm]
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        first = await kept(swarm, ONE, **options)
        second = await kept(swarm, OTHER, **options)
        expected = await alone(swarm, OTHER, **options)
        assert second.token_ids == expected.token_ids
        assert (first.stats.cached_tokens, second.stats.cached_tokens) == (0, len(SHARED))
        # the first one is still there, whole
        turn = [*ONE, *first.token_ids, 41]
        third = await kept(swarm, turn, **options)
        assert third.token_ids == (await alone(swarm, turn, **options)).token_ids
        assert third.stats.cached_tokens == len(ONE) + NEW - 1


@pytest.mark.parametrize(
    ("stage", "way"),
    [(0, {}), (1, {"window": 0}), (2, {}), (0, {"standby": True}), (1, {"standby": True})],
)
async def test_a_peer_that_dies_after_the_fork_is_replaced(
    stage: int, way: dict[str, Any], make: Callable[[], Swarm]
) -> None:
    """The peers that follow get the copied outputs, a first peer all tokens."""
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        expected = await alone(swarm, OTHER)
        strike = killing(stage)
        strike = when_all_stand_by(strike) if way.get("standby") else strike
        text = await kept(swarm, OTHER, strike, **way)
        assert text.token_ids == expected.token_ids
        assert text.stats.cached_tokens == len(SHARED)
        assert [each.standby for each in text.stats.failovers] == [bool(way.get("standby"))]


async def test_several_go_on_from_one_at_once_beside_its_own_next_turn(
    make: Callable[[], Swarm],
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        first = await kept(swarm, ONE)
        turn = [*ONE, *first.token_ids, 41]
        prompts = [OTHER, THIRD, turn, [*turn[:-3], 51]]
        expected = [await alone(swarm, prompt) for prompt in prompts]
        texts = await asyncio.gather(*(kept(swarm, prompt) for prompt in prompts))
        assert [each.token_ids for each in texts] == [each.token_ids for each in expected]
        cached = [each.stats.cached_tokens for each in texts]
        assert cached == [len(SHARED), len(SHARED), len(turn) - 2, len(turn) - 3]
        assert any(len(batch) > 1 for peer in swarm.up for batch in peer.span.batches)


async def test_a_text_begins_with_one_that_is_being_written(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        expected = await alone(swarm, OTHER)
        found: list[Generation] = []

        async def strike(swarm: Swarm, stream: GenerationStream) -> None:
            found.append(await kept(swarm, OTHER))

        first = await kept(swarm, ONE, strike)
        assert found[0].token_ids == expected.token_ids
        assert found[0].stats.cached_tokens == len(SHARED)
        assert first.token_ids == (await alone(swarm, ONE)).token_ids


async def test_nothing_is_lost_between_an_answer_and_the_rest_of_its_session(
    make: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text whose last token was read may be gone on from before its peers are told to rest."""
    async with swarm_of(make, *STAGES) as swarm:
        told, go_on = asyncio.Event(), asyncio.Event()
        rest = ChainSession.rest

        async def late(session: ChainSession) -> None:
            told.set()
            await go_on.wait()
            await rest(session)

        monkeypatch.setattr(ChainSession, "rest", late)
        first = asyncio.create_task(swarm.write(prompt=ONE, keep=True))
        await soon(told.wait())
        monkeypatch.setattr(ChainSession, "rest", rest)
        text = await kept(swarm, OTHER)
        assert text.stats.cached_tokens == len(SHARED)
        go_on.set()
        await soon(first)
        assert len(swarm.kept) == 2
        assert not swarm.kept._running


async def test_what_another_owner_asked_is_not_begun_with(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await kept(swarm, ONE, owner="me", max_new_tokens=FEW)
        for owner, cached in (("you", 0), (None, 0), ("me", len(SHARED))):
            text = await kept(swarm, OTHER, owner=owner, max_new_tokens=FEW)
            assert text.stats.cached_tokens == cached


async def test_little_in_common_is_read_again(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        text = await kept(swarm, [*SHARED[:15], 21, 22], max_new_tokens=FEW)
        assert text.stats.cached_tokens == 0
        # all of the prompt is held: only its last token is read
        text = await kept(swarm, SHARED, max_new_tokens=FEW)
        assert text.stats.cached_tokens == len(SHARED) - 1
        assert text.token_ids == (await alone(swarm, SHARED, max_new_tokens=FEW)).token_ids


async def test_peers_that_do_not_know_of_forks_read_everything(
    make: Callable[[], Swarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One peer of the chain is older than the others: as before there were forks."""
    async with swarm_of(make, *STAGES[:2]) as swarm:
        monkeypatch.setattr(
            "swarm.network.links.handshake.ServingSide",
            functools.partial(handshake.ServingSide, versions=(4, 5, 6, 7)),
        )
        await swarm.add(STAGES[2])
        first = await kept(swarm, ONE)
        (session,) = swarm.kept._kept
        assert not session.can_be_forked
        second = await kept(swarm, OTHER)
        assert second.stats.cached_tokens == 0
        assert second.token_ids == (await alone(swarm, OTHER)).token_ids
        third = await kept(swarm, [*ONE, *first.token_ids, 41], max_new_tokens=FEW)
        assert third.stats.cached_tokens == len(ONE) + NEW - 1


async def test_a_peer_that_refuses_does_not_end_the_text(make: Callable[[], Swarm]) -> None:
    """It has forgotten the session, as one that gave its room to others."""
    async with swarm_of(make, *STAGES) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        (session,) = swarm.kept._kept
        sessions = swarm.up[1].handler.sessions
        sessions.end(sessions[session.protocol.id])
        text = await kept(swarm, OTHER)
        assert (text.stats.cached_tokens, text.stats.failovers) == (0, ())
        assert text.token_ids == (await alone(swarm, OTHER)).token_ids
        assert session not in swarm.kept._kept


async def test_a_member_that_has_gone_is_not_waited_for(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        (session,) = swarm.kept._kept
        peer = next(peer for peer in swarm.up if peer.id == session.chain[1].peer_id)
        swarm.up.remove(peer)
        await peer.die()
        text = await kept(swarm, OTHER, max_new_tokens=FEW)
        assert (text.stats.cached_tokens, text.stats.failovers) == (0, ())


async def test_where_there_is_no_room_for_a_copy_the_source_gives_way(
    make: Callable[[], Swarm],
) -> None:
    async with swarm_of(make, *STAGES, cache_tokens=330) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        assert len(swarm.kept) == 1
        text = await kept(swarm, OTHER, max_new_tokens=FEW)
        assert text.stats.cached_tokens == 0
        assert text.token_ids == (await alone_in(make, OTHER)).token_ids


async def test_for_a_copy_other_kept_sessions_give_way_first(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        (session,) = swarm.kept._kept
        each = session.max_tokens
    async with swarm_of(make, *STAGES, cache_tokens=2 * each + 32) as swarm:
        for prompt in (ONE, [7] * len(ONE)):  # nothing in common
            await kept(swarm, prompt, max_new_tokens=FEW)
        assert len(swarm.kept) == 2
        text = await kept(swarm, OTHER, max_new_tokens=FEW)
        assert text.stats.cached_tokens == len(SHARED)


async def alone_in(make: Callable[[], Swarm], prompt: list[int]) -> Generation:
    async with swarm_of(make, *STAGES) as swarm:
        text: Generation = await alone(swarm, prompt, max_new_tokens=FEW)
        return text


async def test_the_prefix_of_many_requests_is_stored_once(make: Callable[[], Swarm]) -> None:
    """A session of which another one holds nearly all is given up for it."""
    async with swarm_of(make, *STAGES) as swarm:
        for last in range(5):
            text = await kept(swarm, [*SHARED, 11 + last], max_new_tokens=2)
            assert text.stats.cached_tokens == (len(SHARED) if last else 0)
            assert len(swarm.kept) == 1
        await eventually(lambda: all(len(peer.handler.sessions) == 1 for peer in swarm.up))
        # what a conversation has of its own is kept beside it
        text = await kept(swarm, [*SHARED, *range(60, 80)], max_new_tokens=FEW)
        assert text.stats.cached_tokens == len(SHARED)
        assert len(swarm.kept) == 1  # the other one holds little else
        await kept(swarm, [*SHARED, *range(30, 50)], max_new_tokens=FEW)
        assert len(swarm.kept) == 2


async def test_a_client_without_a_head_begins_with_others(material: Material) -> None:
    swarm = Swarm(material.without_head)
    swarm.kept.least_shared = 16
    async with swarm_of(lambda: swarm, *STAGES):
        await kept(swarm, ONE, **HOT, max_new_tokens=FEW)
        text = await kept(swarm, OTHER, **HOT)
        assert text.stats.cached_tokens == len(SHARED)
        assert text.token_ids == (await alone(swarm, OTHER, **HOT)).token_ids


async def test_such_a_text_is_audited_as_any(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES, *STAGES, *STAGES) as swarm, swarm.audits() as audits:
        await kept(swarm, ONE)
        text = await kept(swarm, OTHER)
        assert text.stats.cached_tokens
        await soon(audits.settle())
        assert (audits.audits.texts, audits.audits.disagreements) == (2, 0)


async def test_a_fork_rests_on_the_work_of_all_that_its_source_rests_on(
    make: Callable[[], Swarm],
) -> None:
    """A peer that was replaced before the fork, and is found to have lied after it."""
    async with swarm_of(make, *STAGES, *STAGES) as swarm:
        left: list[str] = []

        async def strike(swarm: Swarm, stream: GenerationStream) -> None:
            left.append(swarm.serving(stream, 0).id)
            await killing(0)(swarm, stream)

        await kept(swarm, ONE, strike)
        text = await kept(swarm, OTHER, max_new_tokens=FEW)
        assert text.stats.cached_tokens == len(SHARED)
        assert len(swarm.kept) == 2
        await swarm.router.trust.condemn(left[0])
        assert len(swarm.kept) == 0


async def test_a_prompt_too_long_leaves_all_where_it_is(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        await kept(swarm, ONE, max_new_tokens=FEW)
        with pytest.raises(PromptTooLong):
            await kept(swarm, [*OTHER, *ONE * 10])
        assert len(swarm.kept) == 1
        text = await kept(swarm, OTHER, max_new_tokens=FEW)
        assert text.stats.cached_tokens == len(SHARED)
