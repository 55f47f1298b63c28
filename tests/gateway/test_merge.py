"""Several streams as one: in turn, bounded, and closed together."""

import asyncio
from contextlib import aclosing

import pytest

from swarm.gateway.merge import merged


async def _count(name, to, log, fail=False):
    try:
        for number in range(to):
            await asyncio.sleep(0)
            yield name, number
            log.append((name, number))
        if fail:
            raise ValueError(name)
    finally:
        log.append((name, "closed"))


async def test_all_is_told_and_each_in_order():
    log = []
    items = [item async for item in merged([_count(name, 3, log) for name in "abc"])]
    assert sorted(items) == [(name, number) for name in "abc" for number in range(3)]
    assert all([n for m, n in items if m == name] == [0, 1, 2] for name in "abc")


async def test_streams_go_no_faster_than_the_reader():
    log = []
    async with aclosing(merged([_count(name, 100, log) for name in "ab"])) as items:
        await anext(items)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(log) <= 3
    assert log.count(("a", "closed")) == log.count(("b", "closed")) == 1


async def test_one_that_fails_ends_all():
    log = []
    with pytest.raises(ValueError, match="a"):
        async for _ in merged([_count("a", 1, log, fail=True), _count("b", 1000, log)]):
            pass
    assert ("b", "closed") in log
    assert ("b", 999) not in log
