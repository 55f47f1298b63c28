"""Which peers a client knows of, and when it asks again."""

from collections.abc import Callable

import pytest
from pocket import STAGES, Swarm, swarm_of
from support import eventually, soon

from swarm import router
from swarm.errors import DirectoryDown
from swarm.generation import GenerationStream
from swarm.network.records import PeerRecord
from swarm.network.survey import Sample
from swarm.routing.chain import MissingLayers


async def test_while_a_text_is_written_those_who_come_are_met_beforehand(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "WATCH_S", 0.05)

    async def come_and_die(swarm: Swarm, stream: GenerationStream) -> None:
        await swarm.add((1, 3))
        await eventually(lambda: swarm.connected(swarm.up[-1]))
        monkeypatch.setattr(swarm, "survey", down)  # whoever asks now gets no answer
        leaving = swarm.serving(stream, 1)
        swarm.up.remove(leaving)
        await leaving.die()

    async with swarm_of(make, *STAGES) as swarm:
        text = await soon(swarm.write(come_and_die))
        assert text.token_ids == expected
        (failover,) = text.stats.failovers
        assert failover.waited_ms == 0


async def down(*_: object) -> None:
    raise DirectoryDown("unplugged")


async def test_a_directory_that_is_down_is_no_hindrance_while_peers_are_known(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        records = (await swarm.survey("", 0)).records
        monkeypatch.setattr(swarm, "survey", down)
        with pytest.raises(DirectoryDown):
            await soon(swarm.write())
        swarm.know(records)
        assert (await soon(swarm.write())).token_ids == expected


async def test_records_that_got_lost_in_the_directory_are_believed_for_a_while(
    make: Callable[[], Swarm], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgetful(*_: object) -> Sample[PeerRecord]:
        return Sample((), (), 0, True)

    monkeypatch.setattr(router, "FRESH_S", 0.0)
    async with swarm_of(make, *STAGES) as swarm:
        await soon(swarm.write())
        monkeypatch.setattr(swarm, "survey", forgetful)
        assert (await soon(swarm.write())).token_ids == expected
        monkeypatch.setattr(router, "RECORD_LIFETIME_S", 0.0)
        with pytest.raises(MissingLayers):
            await soon(swarm.write())
