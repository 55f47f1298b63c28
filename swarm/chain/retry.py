"""A chain, else another one: for work that has to begin anew when a peer fails.

A text that is being written does not begin anew; `swarm.chain.failover` repairs its chain.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeVar

from swarm.chain.stage import ChainLink
from swarm.errors import ChainBroken, ChainSilent, MissingLayers
from swarm.routing.taps import Tapping
from swarm.wire.faults import FaultCode

PAUSE_S = 0.5  # between two searches for peers that are expected

T = TypeVar("T")


class ChainSource(Protocol):
    """The part of a `Router` that finds chains, and is told of peers that failed."""

    async def chain(self, avoid: Collection[str], tapping: Tapping | None) -> list[ChainLink]: ...
    def broke(self, failure: ChainBroken) -> None: ...


async def on_some_chain(
    source: ChainSource,
    work: Callable[[Sequence[ChainLink]], Awaitable[T]],
    *,
    tries: int,
    patience_s: float = 0.0,
    tapping: Tapping | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Return the result of ``work`` on the best chain. If a peer of it fails, the work begins anew
    on the best chain without that peer.

    Peers that the directory names but that do not answer or have no room may do so soon: these are
    waited for.

    Args:
        tries: chains that may fail. A peer that is busy is avoided, too, but has not failed.
        patience_s: how long to wait for layers that no peer serves now.
        tapping: which outputs of layers the peers of the chain should tell.
        clock: seconds, monotonic.

    Raises:
        MissingLayers, WrongWeights, OtherQuantization: if no chain is found.
        ChainBroken, ChainSilent: what the last chain failed of.
    """
    deadline_s = clock() + patience_s
    avoid: set[str] = set()
    failures = 0
    refused: ChainBroken | None = None
    while True:
        try:
            return await work(await source.chain(avoid, tapping))
        except MissingLayers as missing:
            if not missing.expected or clock() >= deadline_s:
                raise refused or missing from None
            await asyncio.sleep(PAUSE_S)
            avoid.clear()
        except ChainBroken as failure:
            refused = failure
            avoid.add(failure.peer_id)
            source.broke(failure)
            failures += failure.code is not FaultCode.BUSY
            if failures >= tries:
                raise
        except ChainSilent:
            failures += 1
            if failures >= tries:
                raise
