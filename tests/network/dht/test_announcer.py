import asyncio

import pytest

from helpers.loopback import soon
from swarm.errors import DirectoryDown, InvalidRecord
from swarm.network.dht.announcer import announce
from swarm.network.dht.records import PeerRecord


class FakeDirectory:
    def __init__(self, failures: dict[int, Exception]) -> None:
        self.failures = failures
        self.published: list[PeerRecord] = []
        self.calls = 0
        self.three_published = asyncio.Event()

    async def publish(self, record: PeerRecord) -> None:
        self.calls += 1
        if error := self.failures.get(self.calls):
            raise error
        self.published.append(record)
        if len(self.published) == 3:
            self.three_published.set()


async def test_a_failed_refresh_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    directory = FakeDirectory({2: DirectoryDown("nobody answers")})
    speeds = iter(range(1000))
    task = asyncio.create_task(
        announce(
            directory,
            lambda: PeerRecord.model_construct(tokens_per_second=next(speeds)),
            interval_s=0,
        )
    )
    await soon(directory.three_published.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.tokens_per_second for record in directory.published[:3]] == [0, 2, 3]
    assert "nobody answers" in caplog.text


async def test_our_own_mistakes_are_not_swallowed() -> None:
    with pytest.raises(InvalidRecord):
        await announce(
            FakeDirectory({1: InvalidRecord("ours")}), PeerRecord.model_construct, interval_s=0
        )
