"""A ban reaches all that uses a peer at once: running generations, idle sessions, peers that stand
by."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from helpers.loopback import Peer, eventually, soon
from helpers.swarm_in_process import NEW, PROMPT, STAGES, Material, Swarm, swarm_of
from swarm.audit.evidence import Evidence
from swarm.audit.guard import Guard
from swarm.chain.trust import MAX_CAUGHT
from swarm.client.generation import GenerationStream
from swarm.client.scoring import Scorer
from swarm.outputs import Audits
from swarm.sim.lies import LyingSpan, noise

AT = 10  # tokens, when the lie comes out


pytestmark = pytest.mark.usefixtures("chains_stay")


class Witness:
    """An auditor that only looks at what it is offered."""

    audits = Audits()

    def __init__(self) -> None:
        self.seen: list[Evidence] = []

    def offer(self, evidence: Evidence, _: int) -> None:
        self.seen.append(evidence)


async def join_liar(
    swarm: Swarm, material: Material, place: int, others: Sequence[tuple[int, int]] = STAGES
) -> Peer:
    """Let a liar serve a stage of the chain, and honest peers come later, by default one a
    stage."""
    liar = await swarm.join(LyingSpan(material.spans[STAGES[place]], noise))
    await swarm.add(*(stage for stage in STAGES if stage != STAGES[place]))
    await swarm.router.chain()
    await swarm.add(*others)
    swarm.survey_anew()
    return liar


async def gone(swarm: Swarm, peer: Peer) -> None:
    swarm.up.remove(peer)
    await peer.die()


async def honest(make_fresh: Callable[[], Swarm], begun: list[int]) -> tuple[int, ...]:
    """Return how honest peers continue the text."""
    async with swarm_of(make_fresh, *STAGES) as swarm:
        return (
            await soon(
                swarm.write(prompt=begun, window=0, max_new_tokens=len(PROMPT) + NEW - len(begun))
            )
        ).token_ids


@pytest.mark.parametrize(
    "way", ["as it lies", "after it left", "with others standing by", "with no others behind it"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_text_goes_on_as_if_the_liar_had_never_been_part_of_it(
    place: int,
    way: str,
    make_fresh: Callable[[], Swarm],
    material: Material,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Honest peers after it hold what they computed from its lies: they forget it and read the text
    again."""
    monkeypatch.setattr(Guard, "objection", lambda *_: None)
    said: list[int] = []
    async with swarm_of(make_fresh) as swarm:
        liar = await join_liar(
            swarm, material, place, [STAGES[place]] if way == "with no others behind it" else STAGES
        )
        witness = swarm.auditor = Witness()  # type: ignore[assignment]
        stream = swarm.stream(window=0, standby=way == "with others standing by")
        async for piece in stream:
            if len(said) == AT // 2 and way == "after it left":
                await gone(swarm, liar)
            if len(said) == AT and way == "with others standing by":
                await eventually(lambda: len(stream.standby) == len(STAGES))
            if len(said) == AT:
                if liar in swarm.up:
                    assert liar.id in {stop.peer_id for stop in stream.route}
                await swarm.router.trust.condemn(liar.id)
            said.append(piece.token_id)
        route = {stop.peer_id for stop in stream.route}
        assert liar.id not in route
        assert liar not in swarm.up or len(liar.handler.sessions) == 0
        assert all(
            liar.id not in failover.peers or stop
            for failover in stream.result.stats.failovers
            for stop in route
        )
        assert {liar.id} <= {
            peer_id for each in stream.result.stats.failovers for peer_id in each.peers
        }
        if way == "with no others behind it":
            assert {stop.peer_id for stop in stream.route} >= {peer.id for peer in swarm.up[1:3]}
            assert stream.result.stats.failovers[0].peers == (liar.id,)
        if way == "after it left" and place == 2:
            assert len(stream.result.stats.failovers) == 1, "it has left, and nobody holds its lies"
        (evidence,) = witness.seen
        assert liar.id not in evidence.peer_ids
        assert min(evidence.positions) >= len(PROMPT) + AT
    cut = AT + 1  # the token that had come already
    assert tuple(said[cut:]) == await honest(make_fresh, [*PROMPT, *said[:cut]])


async def test_a_liar_that_stands_by_never_steps_in(
    make_fresh: Callable[[], Swarm], material: Material
) -> None:
    async with swarm_of(make_fresh, *STAGES) as swarm:
        await swarm.router.chain()
        liar = await swarm.join(LyingSpan(material.spans[STAGES[1]], noise))
        swarm.survey_anew()
        said: list[int] = []
        stream = swarm.stream(window=0, standby=True)
        async for piece in stream:
            said.append(piece.token_id)
            if len(said) == AT:
                await eventually(lambda: [stop.peer_id for stop in stream.standby] == [liar.id])
                await swarm.router.trust.condemn(liar.id)
                await eventually(lambda: not stream.standby)
                await swarm.add(STAGES[1])
                swarm.survey_anew()
                await gone(swarm, swarm.serving(stream, 1))
        assert liar.id not in {stop.peer_id for stop in stream.route}
        assert not stream.result.stats.failovers[0].standby
    assert tuple(said) == await honest(make_fresh, list(PROMPT))


async def test_sessions_that_rest_on_its_work_are_closed_at_once(
    make_fresh: Callable[[], Swarm],
) -> None:
    """Those that it is part of, and those that it was part of."""
    async with swarm_of(make_fresh, *STAGES, *STAGES) as swarm:
        first = []

        async def strike(swarm: Swarm, stream: GenerationStream) -> None:
            first.append(swarm.serving(stream, 0).id)
            await gone(swarm, swarm.serving(stream, 0))

        await soon(swarm.write(strike, keep=True))
        assert len(swarm.kept) == 1
        await swarm.router.trust.condemn(first[0])
        assert len(swarm.kept) == 0
        await eventually(lambda: all(peer.idle for peer in swarm.up))
        await soon(swarm.write(keep=True))
        assert len(swarm.kept) == 1
        (session,) = swarm.kept._kept
        await swarm.router.trust.condemn(session.chain[1].peer_id)
        assert len(swarm.kept) == 0
        assert swarm.router.trust.caught == (first[0], session.chain[1].peer_id)


async def test_a_session_with_a_peer_that_would_not_be_chosen_now_is_not_taken(
    make_fresh: Callable[[], Swarm],
) -> None:
    async with swarm_of(make_fresh, *STAGES, *STAGES) as swarm:
        text = await soon(swarm.write(keep=True))
        (session,) = swarm.kept._kept
        swarm.health.failed(session.chain[0].peer_id)
        again = await soon(
            swarm.write(prompt=[*PROMPT, *text.token_ids, 5], keep=True, max_new_tokens=2)
        )
        assert again.stats.cached_tokens == 0
        assert session.chain[0].peer_id not in {stop.peer_id for stop in again.route}


async def test_a_text_that_is_read_over_a_liar_is_read_again(
    make_fresh: Callable[[], Swarm], material: Material
) -> None:
    async with swarm_of(make_fresh) as swarm:
        liar = await join_liar(swarm, material, 1)
        liar.span.go_on.clear()
        reader = Scorer(swarm._models, swarm._threads, swarm.router)
        reading = asyncio.create_task(reader.read(PROMPT))
        await eventually(liar.span.entered.is_set)
        await swarm.router.trust.condemn(liar.id)
        read = await soon(reading)
        liar.span.go_on.set()
        again = await soon(reader.read(PROMPT))
        assert read.logits.argmax(1).tolist() == again.logits.argmax(1).tolist()


async def test_whoever_is_caught_twice_is_told_once_and_of_many_the_last(
    make_fresh: Callable[[], Swarm],
) -> None:
    async with swarm_of(make_fresh) as swarm:
        trust = swarm.router.trust
        for name in ("a", "b", "a"):
            await trust.condemn(name)
        assert trust.caught == ("b", "a")
        for number in range(MAX_CAUGHT):
            await trust.condemn(f"c{number}")
        assert len(trust.caught) == MAX_CAUGHT
        assert "a" not in trust.caught
