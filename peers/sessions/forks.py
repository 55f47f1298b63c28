"""Copies of the beginning of a session, with which others of the same client begin."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from peers.compute.history import History
from peers.compute.scheduler import Scheduler
from peers.faults import SessionFault
from swarm.model.cache import KVCache
from swarm.wire.faults import FaultCode
from swarm.wire.forks import Fork
from swarm.wire.token_tree import Placement, TokenTree


@dataclass(frozen=True, eq=False)
class _Asked:
    """A copy that is waited for: what goes where, and the future that ends the wait."""

    fork: Fork
    cache: KVCache
    history: History | None
    done: "asyncio.Future[None]"


class Forks:
    """Copies that are to be made of one session, which stays as it is.

    They are made while nothing of the session is computed: then its cache and its history match its
    token tree. The compute thread makes them, one tensor between two batches. `close` it when the
    session ends.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # bounded: a link opens a few sessions at a time
        self._asked: deque[_Asked] = deque()

    def __len__(self) -> int:
        """How many copies are to be made."""
        return len(self._asked)

    def ask(self, fork: Fork, cache: KVCache, history: History | None) -> "asyncio.Future[None]":
        """Return what is done when a copy of a beginning is made.

        Its exception is a `SessionFault` if the beginning is not held.

        Args:
            cache: which takes the copy; it is empty, and not used otherwise meanwhile.
            history: likewise; None if no outputs are copied.
        """
        done = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(fork, cache, history, done))
        return done

    async def serve(self, tree: TokenTree, cache: KVCache, history: History | None) -> None:
        """Make the copy that waits longest. Its failure is that of the session that begins with it,
        not of this one.

        Args:
            tree: of the tokens that cache and history hold.
        """
        asked = self._asked.popleft()
        if asked.done.done():  # its client does not wait any more
            return
        try:
            placement = _placed(asked.fork, tree, cache)
            await self._scheduler.take_steps(_steps(asked, placement, cache, history))
        except Exception as error:
            _settle(asked, error)
        except asyncio.CancelledError:
            _settle(asked, _gone())
            raise
        else:
            _settle(asked, None)

    def close(self) -> None:
        """Make no more copies. May be called twice."""
        while self._asked:
            _settle(self._asked.popleft(), _gone())


def _placed(fork: Fork, tree: TokenTree, cache: KVCache) -> Placement:
    """Return which rows to copy. Raise `SessionFault` if they are not there."""
    placement = tree.beginning(fork.root, fork.count)
    if placement is None:
        raise SessionFault(
            FaultCode.NO_SESSION,
            f"{fork.count} tokens up to number {fork.root} are not held in the session to begin"
            " with; open one that begins with none",
        )
    if not cache.fits(placement):
        raise SessionFault(
            FaultCode.NO_SESSION,
            f"these layers keep states, and none from before token {fork.count} of the session to"
            " begin with; open one that begins with none",
        )
    return placement


def _steps(
    asked: _Asked, placement: Placement, cache: KVCache, history: History | None
) -> Iterator[None]:
    yield from asked.cache.fork(cache, placement)
    if asked.history is not None and history is not None:
        asked.history.fork(history, placement)


def _gone() -> SessionFault:
    return SessionFault(FaultCode.NO_SESSION, "the session to begin with has ended")


def _settle(asked: _Asked, error: Exception | None) -> None:
    if asked.done.done():  # its client has left meanwhile
        return
    if error is None:
        asked.done.set_result(None)
    else:
        asked.done.set_exception(error)
