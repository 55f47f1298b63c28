"""The books of a peer's sessions, without links: what is opened whole, and given back once."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.loopback import opening, session_id, soon, tokens_frame
from helpers.models import ARCHITECTURES, LAYERS
from peers.access.control import AccessControl
from peers.access.limits import AccessLimits
from peers.compute.cache_budget import CacheBudget
from peers.compute.scheduler import Scheduler
from peers.counters import Counters
from peers.faults import SessionFault
from peers.sessions.limits import SessionLimits
from peers.sessions.registry import MAX_OVER, SessionRegistry, check_opening
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.network.links.link import LinkClosed
from swarm.wire.faults import FaultCode
from swarm.wire.messages import Fault, Hop, Opened, WireMessage
from swarm.wire.token_tree import MAX_TAIL

FINGERPRINT = "0" * 32
NEXT = Hop(peer_id="nextpeer01", address="192.0.2.9:1", certificate="0" * 64)


@dataclass(eq=False)
class FakeLink:
    """As much of a link as the registry knows; it never has anything to read."""

    peer_id: str = "alice"
    address: str = "192.0.2.1"
    relayed: bool = False
    closed: bool = False
    bytes_sent: int = 0
    bytes_received: int = 0
    sent: list[WireMessage] = field(default_factory=list)

    async def send(self, message: WireMessage) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.closed = True

    def __aiter__(self) -> "FakeLink":
        return self

    async def __anext__(self) -> WireMessage:
        await asyncio.Event().wait()
        raise StopAsyncIteration


class FakeDialer:
    """Reaches the next peer as soon as it may; ``fails``: never."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        self.fails = False

    async def connect(self, *where: str) -> FakeLink:
        self.asked.set()
        await self.may_answer.wait()
        if self.fails:
            raise LinkClosed(where[0], "it does not answer")
        return FakeLink("nextpeer01")


class Books:
    """A registry that serves a whole model, its time, and what it must have got back in the end."""

    def __init__(
        self, span: Span, cache_tokens: int = 256, limits: AccessLimits | None = None
    ) -> None:
        self.now_s = 0.0
        self.dialer: Any = FakeDialer()
        self.admission = AccessControl(limits, self.clock)
        self.counters = Counters()
        self.budget = CacheBudget(cache_tokens, self.clock)
        self.registry = SessionRegistry(
            FINGERPRINT,
            self.dialer,
            SessionLimits(max_positions=256),
            self.admission,
            self.counters,
            clock=self.clock,
        )
        self.registry.take_up(Scheduler(span), self.budget)

    def clock(self) -> float:
        return self.now_s

    async def open(self, link: FakeLink, number: int = 0, **changes: Any) -> Opened:
        asked = opening(FINGERPRINT, 0, LAYERS, session=session_id(number), **changes)
        return await self.registry.open(link, asked)  # type: ignore[arg-type]

    async def refused(self, link: FakeLink, number: int = 0, **changes: Any) -> SessionFault:
        with pytest.raises(SessionFault) as caught:
            await self.open(link, number, **changes)
        return caught.value

    async def farewells(self) -> None:
        while self.registry._farewells:
            await soon(asyncio.wait(self.registry._farewells))

    @property
    def reserved(self) -> tuple[int, int, int, int]:
        """Sessions, tokens of cache, bytes of histories, and uses of links to next peers."""
        registry, histories = self.registry, self.registry.histories
        return (
            self.admission._sessions,
            self.budget.total_tokens - self.budget.free_tokens,
            histories.total_bytes - histories.free_bytes,
            sum(registry.next_links._users.values()),
        )


NOTHING = (0, 0, 0, 0)


@pytest.fixture(scope="module")
def span(tiny: Checkpoint) -> Span:
    return Span.load(tiny, 0, LAYERS)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"fingerprint": "f" * 32}, FaultCode.WRONG_MODEL),
        ({"first": 1}, FaultCode.WRONG_LAYERS),
        ({"last": 5}, FaultCode.WRONG_LAYERS),
        ({"max_tokens": 256 + MAX_TAIL + 1}, FaultCode.BAD_MESSAGE),
    ],
    ids=str,
)
def test_an_opening_names_these_weights_these_layers_and_no_more_than_the_context(
    change: dict[str, Any], code: FaultCode
) -> None:
    fields: dict[str, Any] = {"fingerprint": FINGERPRINT, "first": 2, "last": 4}
    check_opening(opening(**fields), (2, 4), FINGERPRINT, 256)
    check_opening(opening(**fields, max_tokens=256 + MAX_TAIL), (2, 4), FINGERPRINT, 256)
    with pytest.raises(SessionFault) as caught:
        check_opening(opening(**(fields | change)), (2, 4), FINGERPRINT, 256)
    assert caught.value.code == code


async def test_layers_that_cannot_be_parted_are_not_opened_apart(tmp_path: Path) -> None:
    ARCHITECTURES["glm_moe_dsa_shared"].save(tmp_path)
    books = Books(Span.load(Checkpoint.open(str(tmp_path)), 0, LAYERS))
    apart = opening(FINGERPRINT, 1, LAYERS, session=session_id(0))
    with pytest.raises(SessionFault, match="only before the layers 2") as caught:
        await books.registry.open(FakeLink(), apart)  # type: ignore[arg-type]
    assert caught.value.code == FaultCode.WRONG_LAYERS
    assert books.reserved == NOTHING
    together = opening(FINGERPRINT, 2, LAYERS, session=session_id(0))
    await books.registry.open(FakeLink(), together)  # type: ignore[arg-type]


def test_a_model_without_a_context_sets_no_limit() -> None:
    check_opening(opening(FINGERPRINT, 0, 1, max_tokens=1 << 20), (0, 1), FINGERPRINT, None)


async def test_a_session_is_registered_once_and_gives_back_what_it_reserved_once(
    span: Span,
) -> None:
    books, link = Books(span), FakeLink()
    books.dialer.may_answer.set()
    assert await books.open(link, next=NEXT) == Opened(session=session_id(), taps=True, forks=True)
    session = books.registry[session_id()]
    assert books.reserved == (1, 64, 64 * span.hidden_size * span.dtype.itemsize, 1)
    assert (await books.refused(FakeLink("bob"))).code == FaultCode.BAD_MESSAGE
    assert len(books.registry) == books.counters.opened == 1
    for _ in range(2):
        books.registry.end(session)
        books.registry.fail(session, SessionFault(FaultCode.INTERNAL, "too late"))
        assert books.registry.is_over(session_id())
        await books.farewells()
    assert (books.reserved, link.sent) == (NOTHING, [])
    await books.registry.next_links.close()


async def test_only_its_opener_owns_a_session(span: Span) -> None:
    books, link = Books(span), FakeLink()
    await books.open(link)
    session = books.registry[session_id()]
    assert books.registry.owned(session_id(), link) is session  # type: ignore[arg-type]
    for stranger in (FakeLink("bob"), FakeLink("alice")):
        assert books.registry.owned(session_id(), stranger) is None  # type: ignore[arg-type]
    books.registry.end_all(stranger)  # type: ignore[arg-type]
    assert set(books.registry) == {session_id()}
    books.registry.end_all(link)  # type: ignore[arg-type]
    await books.farewells()
    assert (len(books.registry), books.reserved) == (0, NOTHING)


async def test_the_quicker_of_two_openings_wins_and_the_other_keeps_nothing(span: Span) -> None:
    books, slow, quick = Books(span), FakeLink(), FakeLink("bob")
    opening_slowly = asyncio.create_task(books.refused(slow, next=NEXT))
    await soon(books.dialer.asked.wait())
    await books.open(quick)
    books.dialer.may_answer.set()
    assert (await soon(opening_slowly)).code == FaultCode.BAD_MESSAGE
    assert books.reserved == (1, 64, 0, 0)
    assert books.registry[session_id()].downstream.opener is quick  # type: ignore[comparison-overlap]
    books.registry.end_all(quick)  # type: ignore[arg-type]
    await books.farewells()
    await books.registry.next_links.close()


async def test_a_next_peer_that_does_not_answer_leaves_nothing_reserved(span: Span) -> None:
    books = Books(span)
    books.dialer.fails = True
    books.dialer.may_answer.set()
    fault = await books.refused(FakeLink(), next=NEXT)
    assert (fault.code, fault.peer) == (FaultCode.NEXT_UNREACHABLE, NEXT.peer_id)
    assert (books.reserved, books.counters.opened) == (NOTHING, 0)


@pytest.mark.parametrize(
    ("silent_s", "open_s", "gives_way"),
    [(11, 0, True), (0, 61, True), (9, 50, False)],
    ids=["silent", "open for long", "neither"],
)
async def test_what_is_lent_is_taken_back_when_others_want_it(
    span: Span, silent_s: float, open_s: float, gives_way: bool
) -> None:
    limits = AccessLimits(cache_share=(0.5, 1.0), lent_silent_s=10.0, lent_s=60.0)
    books, alice, bob = Books(span, 128, limits), FakeLink(), FakeLink("bob", "192.0.2.2")
    await books.open(alice, 1)
    await books.open(alice, 2)
    books.now_s = open_s
    for number in (2, 1):  # the first is the longest silent
        books.registry[session_id(number)].accept(tokens_frame(1, (3,), session=session_id(number)))
        books.now_s += 0.1
    books.now_s += silent_s
    if gives_way:
        await books.open(bob, 3)
        assert set(books.registry) == {session_id(1), session_id(3)}
        await books.farewells()
        (fault,) = alice.sent
        assert isinstance(fault, Fault)
        assert (fault.code, fault.session) == (FaultCode.BUSY, session_id(2))
    else:
        assert (await books.refused(bob, 3)).code == FaultCode.BUSY
        assert set(books.registry) == {session_id(1), session_id(2)}
    await books.registry.put_down(goodbye_s=1.0)
    assert books.reserved == NOTHING


async def test_layers_that_are_put_down_fail_their_sessions_and_open_no_more(span: Span) -> None:
    books, link = Books(span), FakeLink()
    await books.open(link)
    books.registry.draining = True
    assert (await books.refused(link, 2)).code == FaultCode.DRAINING
    await soon(books.registry.put_down(goodbye_s=1.0))
    assert [message.code for message in link.sent] == [FaultCode.DRAINING]  # type: ignore[attr-defined]
    await soon(books.registry.wait_idle(1.0))
    books.registry.draining = False
    assert (await books.refused(link, 2)).code == FaultCode.DRAINING, "there are no layers"
    books.registry.take_up(Scheduler(span), books.budget)
    await books.open(link, 2)
    await books.registry.put_down(goodbye_s=1.0)
    assert books.reserved == NOTHING


@pytest.mark.parametrize("by_client", [True, False])
async def test_a_broken_rule_counts_against_the_client_only_if_the_client_broke_it(
    span: Span, by_client: bool
) -> None:
    books, link = Books(span), FakeLink()
    asked = opening(FINGERPRINT, 1, LAYERS)  # behind another peer
    await books.registry.open(link, asked)  # type: ignore[arg-type]
    fault = SessionFault(FaultCode.BAD_MESSAGE, "")
    books.registry.fail(books.registry[session_id()], fault, by_client)
    assert books.admission.refusals == {"bad_message": 1}
    assert bool(len(books.admission._violations[0])) == by_client
    await books.farewells()
    assert books.reserved == NOTHING


async def test_only_the_last_ended_sessions_are_remembered(span: Span) -> None:
    books, link = Books(span, limits=AccessLimits(sessions_each=(1, 1))), FakeLink()
    for number in range(MAX_OVER + 1):
        await books.open(link, number)
        books.registry.end(books.registry[session_id(number)])
    await books.farewells()
    assert not books.registry.is_over(session_id(0))
    assert books.registry.is_over(session_id(1))
