"""Sessions that are being opened: each in a task, and a bounded number for each link."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from peers.access.control import AccessControl
from peers.faults import SessionFault
from peers.sessions.registry import SessionRegistry
from swarm.network.links.link import Link
from swarm.util.tasks import end
from swarm.wire.faults import FaultCode
from swarm.wire.fields import SessionId
from swarm.wire.messages import Open, WireMessage

MAX_OPENING_PER_LINK = 16  # sessions that one link may be opening at a time

log = logging.getLogger(__name__)


class Openings:
    """Opens sessions beside the reading of links: a next peer may be slow to answer.

    ``enter`` and ``leave`` of a link come in pairs.

    Args:
        send: sends an answer over a link.
    """

    def __init__(
        self,
        sessions: SessionRegistry,
        admission: AccessControl,
        send: Callable[[Link, WireMessage], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._admission = admission
        self._send = send
        self._tasks: dict[Link, dict[SessionId, asyncio.Task[None]]] = {}

    @property
    def links(self) -> tuple[Link, ...]:
        """The links between their `enter` and their `leave`."""
        return tuple(self._tasks)

    def enter(self, link: Link) -> None:
        """Let a link open sessions."""
        self._tasks[link] = {}

    def leave(self, link: Link) -> list["asyncio.Task[None]"]:
        """Return the openings of a link, for the caller to end."""
        return list(self._tasks.pop(link).values())

    async def start(self, link: Link, opening: Open) -> None:
        """Begin to open a session, or tell the client why not."""
        tasks = self._tasks[link]
        try:
            await self._admission.opening(link)
            if opening.session in tasks:
                raise SessionFault(FaultCode.BAD_MESSAGE, "it is being opened already")
            if len(tasks) >= MAX_OPENING_PER_LINK:
                raise self._admission.refuse("openings", "many are being opened")
        except SessionFault as fault:
            await self._send(link, fault.message(opening))
            return
        task = tasks[opening.session] = asyncio.create_task(self._open(link, opening))
        task.add_done_callback(lambda _: tasks.pop(opening.session, None))

    def cancel(self, link: Link, session: SessionId) -> None:
        """Stop opening a session, for its client does not wait for the next peer any longer."""
        if task := self._tasks[link].get(session):
            task.cancel()

    async def settle(self, timeout_s: float) -> None:
        """Wait until nothing is being opened; end what still is after that time."""
        tasks = [task for tasks in self._tasks.values() for task in tasks.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        await end(*tasks)

    async def _open(self, link: Link, opening: Open) -> None:
        answer: WireMessage
        try:
            answer = await self._sessions.open(link, opening)
        except SessionFault as fault:
            answer = fault.message(opening)
        except Exception as error:
            log.exception("a session could not be opened")
            answer = SessionFault(FaultCode.INTERNAL, type(error).__name__).message(opening)
        await self._send(link, answer)
