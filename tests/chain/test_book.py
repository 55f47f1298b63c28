"""What a client knows of peers: told in any order, by any number of generations, it never names a
peer that must not be used, and forgets what is no longer true."""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helpers.clock import Clock
from helpers.records import peer_record
from swarm.audit.ledger import Ledger
from swarm.chain import book as module
from swarm.chain.book import NEAREST, PeerBook, Wanted
from swarm.chain.choice import choose
from swarm.errors import MissingLayers
from swarm.identity import Identity
from swarm.network.dht.records import RECORD_LIFETIME_S, PeerRecord, neighbour_key
from swarm.outputs import RouteStop, StageTimes
from swarm.routing.chain import Stage, gaps
from swarm.routing.cuts import Cuts
from swarm.routing.health import BAN_S, FIRST_BACKOFF_S, Health

LAYERS = 4
SPANS = [(0, 2), (0, 2), (2, 4), (2, 4), (0, 4), (1, 3)]
IDS = [Identity.generate().peer_id for _ in SPANS]
RECORDS = {
    peer_id: peer_record(peer_id, first_layer=first, last_layer=last, model_layers=LAYERS)
    for peer_id, (first, last) in zip(IDS, SPANS, strict=True)
}
ALL = Wanted(0, LAYERS)


@pytest.fixture
def book(clock: Clock) -> PeerBook:
    return book_of(clock)


def book_of(clock: Clock, known: Iterable[PeerRecord] = ()) -> PeerBook:
    return PeerBook(LAYERS, Health(clock, clock), known)


def test_peers_of_older_protocols_tell_no_outputs_of_their_layers(clock: Clock) -> None:
    records = [peer_record(IDS[0], protocol=6), peer_record(IDS[1], protocol=7)]
    rtt_ms = dict.fromkeys(IDS, 10.0)
    found = book_of(clock).candidates(Wanted(0, records[0].model_layers), records, rtt_ms)
    assert [each.taps for each in found] == [False, True]


def test_only_layers_between_places_where_the_model_may_be_cut_are_used(clock: Clock) -> None:
    spans = {IDS[0]: (0, 3), IDS[1]: (1, 4), IDS[2]: (3, 4)}
    records = [
        peer_record(peer_id, first_layer=first, last_layer=last, model_layers=LAYERS)
        for peer_id, (first, last) in spans.items()
    ]
    health = Health(clock, clock)
    book = PeerBook(LAYERS, health, records, cuts=Cuts(LAYERS, (2,)))
    asked = [record.peer_id for asked in book.to_ask(ALL) for record in asked]
    assert sorted(asked) == sorted(IDS[:2])  # the third serves only a part of what hangs together
    used = book.candidates(ALL, records[:2], dict.fromkeys(IDS, 10.0))
    assert [(each.first_layer, each.last_layer) for each in used] == [(0, 2), (2, 4)]
    headless = PeerBook(LAYERS, health, records, needs_head=True, cuts=Cuts(LAYERS, (2,)))
    used = headless.candidates(ALL, records[:1], dict.fromkeys(IDS, 10.0))
    assert [(each.first_layer, each.last_layer) for each in used] == [(0, 2)]
    assert [record.peer_id for asked in headless.to_ask(ALL) for record in asked] == IDS[:1]


def test_without_a_head_of_its_own_a_client_uses_the_last_layer_of_peers_that_hold_it(
    clock: Clock,
) -> None:
    book = PeerBook(LAYERS, Health(clock, clock), needs_head=True)
    records = {
        IDS[0]: peer_record(IDS[0], first_layer=0, last_layer=4, model_layers=LAYERS),
        IDS[2]: peer_record(IDS[2], first_layer=3, last_layer=4, model_layers=LAYERS),
        IDS[3]: peer_record(
            IDS[3], first_layer=2, last_layer=4, model_layers=LAYERS, software="1.0+head"
        ),
    }
    for known, covered in (((IDS[0], IDS[2]), False), (records, True)):
        book.survey_began()
        book.surveyed([records[peer_id] for peer_id in known], True, clock())
        there = [records[peer_id] for peer_id in known]
        rtt_ms = dict.fromkeys(records, 10.0)
        spans = {
            each.peer_id: (each.first_layer, each.last_layer)
            for each in book.candidates(ALL, [r for r in there if r.peer_id in asked(book)], rtt_ms)
        }
        assert spans[IDS[0]] == (0, 3)
        assert IDS[2] not in spans
        assert spans.get(IDS[3]) == ((2, 4) if covered else None)
        assert book.promised([(3, 4)]) == covered


def survey(book: PeerBook, at_s: float, ids: Iterable[str] = IDS, complete: bool = True) -> None:
    book.survey_began()
    book.surveyed([RECORDS[peer_id] for peer_id in ids], complete, at_s)


def asked(book: PeerBook, wanted: Wanted = ALL, **options: list[tuple[int, int]]) -> set[str]:
    near, others = book.to_ask(wanted, **options)
    return {record.peer_id for record in (*near, *others)}


def answer(book: PeerBook, wanted: Wanted = ALL, silent: Collection[str] = ()) -> dict[str, float]:
    """All that would be asked are; all but the silent ones answer."""
    near, others = book.to_ask(wanted)
    records = [*near, *others]
    rtt_ms = {r.peer_id: 10.0 for r in records if r.peer_id not in silent}
    book.answered(records, rtt_ms)
    return rtt_ms


def test_a_record_that_is_not_named_again_stays_as_long_as_it_would_have_lived(
    book: PeerBook,
) -> None:
    survey(book, 100.0)
    survey(book, 100.0 + RECORD_LIFETIME_S - 1, IDS[1:])
    assert IDS[0] in book.records
    survey(book, 100.0 + RECORD_LIFETIME_S, IDS[1:])
    assert set(book.records) == set(IDS[1:])


def test_of_a_large_swarm_the_nearest_peers_stay_however_long_they_are_not_named(
    book: PeerBook,
) -> None:
    survey(book, 100.0)
    answer(book, silent=IDS[2:])
    later = 100.0 + 10 * RECORD_LIFETIME_S
    survey(book, later, [IDS[5]], complete=False)
    assert list(book.records) == [*IDS[:2], IDS[5]]
    survey(book, later, [IDS[5]])
    assert list(book.records) == [IDS[5]]


def test_what_became_outdated_during_a_survey_is_newer_than_its_answer(book: PeerBook) -> None:
    survey(book, 100.0)
    book.survey_began()
    book.outdated(IDS[0])
    book.surveyed(RECORDS.values(), True, 101.0)
    assert IDS[0] not in book.records
    survey(book, 102.0)
    assert IDS[0] in book.records


def test_peers_from_before_count_as_near_until_they_are_asked_and_as_never_named(
    clock: Clock,
) -> None:
    book = book_of(clock, [RECORDS[IDS[0]], RECORDS[IDS[2]]])
    near, others = book.to_ask(ALL)
    assert ([r.peer_id for r in near], others) == ([IDS[0], IDS[2]], [])
    book.answered(near, {IDS[0]: 10.0})
    assert [r.peer_id for r in book.nearest] == [IDS[0]]
    survey(book, 100.0, [IDS[1]])
    assert list(book.records) == [IDS[1]], "the directory is asked, and knows better"


def test_the_nearest_are_few_and_so_is_what_is_measured(
    book: PeerBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEAREST", 2)
    monkeypatch.setattr(module, "MAX_MEASURED", 3)
    survey(book, 100.0)
    book.answered(RECORDS.values(), {peer_id: 50.0 - i for i, peer_id in enumerate(IDS)})
    near, others = book.to_ask(ALL)
    assert [r.peer_id for r in near] == [IDS[5], IDS[4]]
    assert {r.peer_id for r in others} == set(IDS[:4])
    assert set(book._rtt_ms) == set(IDS[3:])
    assert NEAREST == 64


def test_a_ban_reaches_every_question_at_once(book: PeerBook) -> None:
    """Also one that began before: the peer had been asked already."""
    survey(book, 100.0)
    rtt_ms = answer(book)
    book.health.ban(IDS[0])
    there = [RECORDS[peer_id] for peer_id in rtt_ms]
    assert IDS[0] not in {each.peer_id for each in book.candidates(ALL, there, rtt_ms)}
    assert IDS[0] not in asked(book)
    assert IDS[0] not in asked(book, unserved=[(0, LAYERS)]), "not as a last resort, either"
    assert IDS[0] not in {record.peer_id for record in book.good()}


def test_a_failed_peer_counts_for_layers_that_no_other_one_serves(
    book: PeerBook, clock: Clock
) -> None:
    survey(book, 100.0)
    book.failed(IDS[0])
    assert IDS[0] not in asked(book)
    assert IDS[0] not in asked(book, unserved=[(2, 4)])
    assert IDS[0] in asked(book, unserved=[(1, 3)])
    clock.now += FIRST_BACKOFF_S
    assert IDS[0] in asked(book)


def test_one_silence_that_many_searches_see_is_one_failure(book: PeerBook) -> None:
    survey(book, 100.0)
    for _ in range(3):
        book.answered([RECORDS[IDS[0]]], {})
    assert book.health.retry_in_s(IDS[0]) == FIRST_BACKOFF_S


@pytest.mark.parametrize("state", ["joining", "draining", "offline"])
def test_only_peers_that_are_online_are_asked_but_others_are_promised(
    book: PeerBook, state: str
) -> None:
    book.surveyed([RECORDS[IDS[4]].model_copy(update={"state": state})], True, 100.0)
    assert not asked(book)
    assert book.promised([(0, LAYERS)])
    assert not book.good()


def test_what_is_measured_belongs_to_the_peer_and_not_to_its_place_in_the_chain(
    book: PeerBook,
) -> None:
    """A peer that was replaced, and one that came in the middle: each keeps its own times."""
    survey(book, 100.0)
    first, second, late = Stage(IDS[0], 0, 2), Stage(IDS[2], 2, 4), Stage(IDS[3], 2, 4)
    times = {first: 2.0, second: 40.0, late: 8.0}
    book.failed(second.peer_id)
    book.learn(
        [RouteStop(stage.peer_id, (stage.first, stage.last), 1.0) for stage in (first, late)],
        {stage: StageTimes(compute_ms, 0.5) for stage, compute_ms in times.items()},
    )
    assert [book.health.layer_ms(stage.peer_id) for stage in times] == [1.0, 20.0, 4.0]
    assert not book.health.usable(second.peer_id), "only peers of the final route recovered"


def test_measured_times_replace_what_a_peer_says_of_itself(book: PeerBook) -> None:
    record = RECORDS[IDS[2]].model_copy(
        update={
            "tokens_per_second": 100.0,
            "queue_ms": 3.0,
            "neighbours": ((neighbour_key(IDS[0]), 125), (neighbour_key(IDS[5]), 70)),
        }
    )
    book.surveyed([record, RECORDS[IDS[0]]], True, 100.0)
    there, rtt_ms = [record, RECORDS[IDS[0]]], {IDS[2]: 10.0, IDS[0]: 20.0}
    (said, _) = book.candidates(ALL, there, rtt_ms)
    assert (said.rtt_ms, said.layer_ms, said.fixed_ms) == (10.0, 5.0, 3.0)
    assert said.neighbours_ms == {IDS[0]: 12.5}, "of those that answered"
    book.learn([], {Stage(IDS[2], 2, 4): StageTimes(4.0, 1.0)})
    (seen, _) = book.candidates(ALL, there, rtt_ms)
    assert (seen.layer_ms, seen.fixed_ms) == (2.0, book.health.queue_ms(IDS[2]))


@given(first=st.integers(0, LAYERS - 1), layers=st.integers(1, LAYERS))
def test_a_part_of_the_model_is_counted_from_its_first_layer_on(first: int, layers: int) -> None:
    last = min(first + layers, LAYERS)
    wanted, book = Wanted(first, last), book_of(Clock())
    survey(book, 100.0)
    rtt_ms = answer(book, wanted)
    assert set(rtt_ms) == {
        peer_id for peer_id, (a, b) in zip(IDS, SPANS, strict=True) if a < last and first < b
    }
    for each in book.candidates(wanted, [RECORDS[peer_id] for peer_id in rtt_ms], rtt_ms):
        a, b = SPANS[IDS.index(each.peer_id)]
        assert (each.first_layer, each.last_layer) == (max(a, first) - first, min(b, last) - first)


@dataclass
class Search:
    """A generation that looks for a chain, between its two steps: asking, and being answered."""

    wanted: Wanted
    records: list[PeerRecord] = field(default_factory=list)


PEERS = st.sampled_from(IDS)
WANTED = st.builds(
    lambda span, avoid: Wanted(*span, frozenset(avoid)),
    st.sampled_from([(0, LAYERS), (0, 2), (1, 3), (2, 4)]),
    st.sets(PEERS, max_size=2),
)


class ManyGenerations(RuleBasedStateMachine):
    """Surveys, failures, bans and searches of several generations, in any order.

    The model beside the book: when each peer was named last, since when it is outdated, which are
    banned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.book = book_of(self.clock)
        self.searches: list[Search] = []
        self.named_at: dict[str, float] = {}
        self.banned: dict[str, float] = {}
        self.surveying = False
        self.outdated: set[str] = set()

    @rule(seconds=st.sampled_from([0.1, FIRST_BACKOFF_S, RECORD_LIFETIME_S / 2, BAN_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: not self.surveying)
    @rule()
    def survey_begins(self) -> None:
        self.book.survey_began()
        self.surveying = True
        self.outdated = set()

    @precondition(lambda self: self.surveying)
    @rule(ids=st.sets(PEERS))
    def survey_ends(self, ids: set[str]) -> None:
        now = self.clock.now
        self.surveying = False
        self.named_at |= dict.fromkeys(ids - self.outdated, now)
        self.named_at = {
            peer_id: at for peer_id, at in self.named_at.items() if now - at < RECORD_LIFETIME_S
        }
        self.book.surveyed([RECORDS[peer_id] for peer_id in ids], True, now)

    @rule(peer_id=PEERS)
    def outdates(self, peer_id: str) -> None:
        self.named_at.pop(peer_id, None)
        self.outdated.add(peer_id)
        self.book.outdated(peer_id)

    @rule(peer_id=PEERS)
    def fails(self, peer_id: str) -> None:
        self.book.failed(peer_id)

    @rule(peer_id=PEERS)
    def lies(self, peer_id: str) -> None:
        self.banned[peer_id] = self.clock.now + BAN_S
        self.book.health.ban(peer_id)

    @rule(wanted=WANTED, unserved=st.lists(st.sampled_from([(0, 2), (1, 3)]), max_size=1))
    def asks(self, wanted: Wanted, unserved: list[tuple[int, int]]) -> None:
        near, others = self.book.to_ask(wanted, unserved)
        records = [*near, *others]
        ids = [record.peer_id for record in records]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= self.named_at.keys() - wanted.avoid - self.bans
        self.searches.append(Search(wanted, records))

    @precondition(lambda self: self.searches)
    @rule(place=st.integers(0, 5), silent=st.sets(PEERS, max_size=3), luck=st.randoms())
    def is_answered(self, place: int, silent: set[str], luck: random.Random) -> None:
        search = self.searches.pop(place % len(self.searches))
        rtt_ms = {r.peer_id: luck.uniform(1, 99) for r in search.records}
        rtt_ms = {peer_id: ms for peer_id, ms in rtt_ms.items() if peer_id not in silent}
        self.book.answered(search.records, rtt_ms)
        for record in search.records:
            assert record.peer_id not in silent or not self.book.health.usable(record.peer_id)
        there = [record for record in search.records if record.peer_id in rtt_ms]
        found = self.book.candidates(search.wanted, there, rtt_ms)
        ids = {each.peer_id for each in found}
        assert ids == {record.peer_id for record in there} - self.bans
        assert not ids & search.wanted.avoid
        layers = search.wanted.last - search.wanted.first
        try:
            stages = choose(found, layers, None, Ledger()).stages
        except MissingLayers:
            assert gaps(found, layers)
            return
        assert [stage.first for stage in stages] == [0, *(stage.last for stage in stages[:-1])]
        assert stages[-1].last == layers

    @property
    def bans(self) -> set[str]:
        return {peer_id for peer_id, until in self.banned.items() if until > self.clock.now}

    @invariant()
    def it_knows_those_that_were_named_lately(self) -> None:
        assert set(self.book.records) == self.named_at.keys()

    @invariant()
    def good_peers_are_known_and_no_liars(self) -> None:
        good = {record.peer_id for record in self.book.good()}
        assert good <= self.named_at.keys() - self.bans


TestManyGenerations = ManyGenerations.TestCase
