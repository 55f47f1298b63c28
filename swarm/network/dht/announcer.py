"""Keeps a peer's record alive in the directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn, Protocol

from swarm.errors import ClockOff, DirectoryDown
from swarm.network.dht.records import REFRESH_INTERVAL_S, PeerRecord

logger = logging.getLogger(__name__)


class Publisher(Protocol):
    """What the announcer needs of a Directory."""

    async def publish(self, record: PeerRecord) -> None: ...


async def announce(
    directory: Publisher,
    current: Callable[[], PeerRecord],
    *,
    interval_s: float = REFRESH_INTERVAL_S,
) -> NoReturn:
    """Publish `current()` now and every `interval_s`, until cancelled by the owner, who then
    withdraws.

    A directory that is down for a while is logged and tried again; every other error is the
    caller's.
    """
    while True:
        try:
            await directory.publish(current())
        except ClockOff as error:
            logger.info("This peer's record was not refreshed. %s", error)  # the node says so, once
        except DirectoryDown as error:
            logger.warning(
                "This peer's record was not refreshed, trying again in %.0f s. %s",
                interval_s,
                error,
            )
        await asyncio.sleep(interval_s)
