"""The client's side of a session as a state machine: whatever peers send in whatever order, every
window is answered once, by its own rows, and only members are blamed."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helpers.chain_answers import SESSION, TAPS, TERMS, Sent, result, tapped
from helpers.plain_peers import PlainPeer, fault, plain_peer
from swarm.chain.answer import ChainAnswer
from swarm.chain.events import Event, Lost, Received
from swarm.chain.protocol import ChainProtocol
from swarm.decoding.windows import Window
from swarm.errors import ChainBroken
from swarm.wire.faults import FaultCode
from swarm.wire.messages import (
    Accepting,
    Cancel,
    Close,
    Frame,
    Open,
    Opened,
    Progress,
    Result,
    WireMessage,
)


def rows_belong_to_their_windows(answer: ChainAnswer) -> bool:
    for window, part in answer.rows:
        after = window.first + len(window.tokens)
        if part[:, 0].tolist() != [float(each) for each in range(after - window.tail, after)]:
            return False
    return True


class ProtocolAgainstPeers(RuleBasedStateMachine):
    """Windows, answers, faults and changes of the chain in any order.

    Answers of one epoch come in order, since links keep it; those of older epochs may be late, or
    die on their way.
    """

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.now = 100.0
        self.names = 0
        self.left: list[str] = []  # peers that are members no more
        self.protocol = ChainProtocol(SESSION, [self.new_peer(at) for at in range(count)], TERMS)
        self.chain = list(self.protocol.chain)
        opened = self.protocol.join(self.chain, None, 0, None)
        assert all(isinstance(each.message, Open) for each in opened)
        self.epoch = 0
        self.serial = 0
        self.flying: list[Sent] = []
        self.aside: list[list[Sent]] = []
        self.old: list[Result] = []  # that have been read
        self.answered: list[Window] = []
        self.progress_at = float("-inf")

    def new_peer(self, layer: int) -> PlainPeer:
        self.names += 1
        return plain_peer(f"peer{self.names:06}", layer)

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 4), asked=st.booleans(), turn=st.booleans())
    def send(self, count: int, asked: bool, turn: bool) -> None:
        self.epoch += turn
        first = self.serial + 1
        tail = count if asked else 0
        window = Window(self.epoch, 0, first, (3,) * count, None, tail, first - 1)
        self.serial += count
        out = self.protocol.send(window, self.now)
        self.flying.append(Sent(window, self.now))
        frame, *others = out
        assert frame.to is self.chain[0]
        assert isinstance(frame.message, Frame)
        assert (frame.message.first, frame.message.tokens) == (first, window.tokens)
        begins = turn and self.epoch > 0
        assert [each.to for each in others] == (self.chain[1:] if begins else [])
        assert all(isinstance(each.message, Cancel) for each in others)

    # What comes back.

    def next_answer(self, together: int) -> list[Sent]:
        """The windows that the last peer may answer next, which are not in flight any more."""
        taken = [self.flying.pop(0)]
        while (
            len(taken) < together
            and self.flying
            and self.flying[0].window.epoch == taken[0].window.epoch
            and all(each.window.tail == each.count for each in (*taken, self.flying[0]))
        ):
            taken.append(self.flying.pop(0))
        return taken

    def check(self, answer: ChainAnswer | None, sent: Sequence[Sent]) -> None:
        windows = tuple(each.window for each in sent)
        if windows[0].epoch < self.epoch:
            assert answer is None, "it is stale"
            return
        assert answer is not None
        assert answer.windows == windows
        assert rows_belong_to_their_windows(answer)
        assert not set(windows) & set(self.answered), "a window is answered twice"
        self.answered += windows

    @precondition(lambda self: self.flying and not self.aside)
    @rule(together=st.integers(1, 3))
    def answer(self, together: int) -> None:
        sent = self.next_answer(together)
        arrived = Received(self.chain[-1].peer_id, result(sent), self.now)
        answer = self.protocol.answer(arrived)
        self.progress_at = self.now
        self.check(answer, sent)
        if answer is not None:
            assert answer.at == self.now
            assert answer.measured.loop_ms == pytest.approx((self.now - sent[-1].at) * 1e3)
        self.old.append(arrived.message)  # type: ignore[arg-type]

    @precondition(lambda self: self.flying)
    @rule(together=st.integers(1, 3))
    def answer_while_replies_are_waited_for(self, together: int) -> None:
        sent = self.next_answer(together)
        arrived = Received(self.chain[-1].peer_id, result(sent), self.now)
        assert self.protocol.reply(arrived, Progress) is None
        self.aside.append(sent)

    @precondition(lambda self: self.aside)
    @rule()
    def read_what_was_set_aside(self) -> None:
        fresh = [sent for sent in self.aside if sent[0].window.epoch == self.epoch]
        for sent in fresh:
            self.check(self.protocol.answer_set_aside(), sent)
        assert self.protocol.answer_set_aside() is None
        self.aside.clear()
        self.progress_at = max(self.progress_at, self.protocol._flight._progress_at)

    @precondition(lambda self: self.flying and self.flying[0].window.epoch < self.epoch)
    @rule()
    def a_stale_window_dies_on_its_way(self) -> None:
        """Those behind it in its epoch die, too: a peer takes no older epoch after a cancel."""
        epoch = self.flying[0].window.epoch
        self.flying = [sent for sent in self.flying if sent.window.epoch != epoch]

    @precondition(lambda self: len(self.flying) > 1 and not self.aside)
    @rule(data=st.data())
    def an_answer_comes_out_of_order(self, data: st.DataObject) -> None:
        sent = self.flying[data.draw(st.integers(1, len(self.flying) - 1))]
        if sent.window.epoch != self.flying[0].window.epoch or sent.window.epoch < self.epoch:
            return  # those before it may have died
        self.breaks(Received(self.chain[-1].peer_id, result([sent]), self.now), self.chain[-1])

    @precondition(lambda self: self.old and not self.aside)
    @rule(data=st.data())
    def an_answer_comes_twice(self, data: st.DataObject) -> None:
        again = data.draw(st.sampled_from(self.old))
        event = Received(self.chain[-1].peer_id, again, self.now)
        if again.epoch == self.epoch:
            self.breaks(event, self.chain[-1])
            return
        # the book may wait for another answer of that epoch, which has died on its way
        with suppress(ChainBroken):
            assert self.protocol.answer(event) is None
        self.replace(0, len(self.chain))

    @precondition(lambda self: len(self.chain) > 1 and self.flying)
    @rule(data=st.data())
    def another_peer_than_the_last_answers(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.chain[:-1]))
        self.breaks(Received(peer.peer_id, result(self.flying[:1]), self.now), peer)

    # What goes wrong.

    def breaks(self, event: Event, *blamed: PlainPeer) -> None:
        """An event that breaks the chain: one of these is blamed, and replaced."""
        with pytest.raises(ChainBroken) as caught:
            self.protocol.answer(event)
        named = caught.value.peer_id
        assert named in [peer.peer_id for peer in self.chain], "only members are blamed"
        assert named in [peer.peer_id for peer in blamed]
        place = [peer.peer_id for peer in self.chain].index(named)
        self.replace(place, place + 1)

    @rule(place=st.integers(0, 3), count=st.integers(1, 2))
    def replace(self, place: int, count: int) -> None:
        """Some peers leave, and others take their place."""
        start = place % len(self.chain)
        end = min(start + count, len(self.chain))
        gone, behind = self.chain[start:end], self.chain[end:]
        before = self.chain[start - 1] if start else None
        self.protocol.leave(gone)
        self.left += [peer.peer_id for peer in gone]
        new = [self.new_peer(peer.stage.first) for peer in gone]
        onward = behind[0].hop if behind else None
        self.epoch += 1
        self.protocol.join(new, onward, self.epoch, before and before.peer_id)
        if before is not None:
            self.protocol.follow(before, new[0].hop)
        self.chain[start:end] = new
        self.protocol.go_on(self.chain, self.epoch)
        assert self.protocol.chain == tuple(self.chain)
        assert set(self.protocol.parties) == {*self.left, *(peer.peer_id for peer in self.chain)}
        self.flying.clear()
        self.aside.clear()

    @rule(code=st.sampled_from(FaultCode), data=st.data())
    def a_peer_reports_a_fault(self, code: FaultCode, data: st.DataObject) -> None:
        names = [peer.peer_id for peer in self.chain]
        reporter = data.draw(st.sampled_from(names))
        named = data.draw(st.sampled_from([None, *names, *self.left[-3:]]))
        event = Received(reporter, fault(code, named), self.now)
        place = names.index(reporter)
        neighbours = self.chain[max(0, place - 1) : place + 2]
        if named in self.left:
            assert self.protocol.answer(event) is None, "that one has left"
        else:
            self.breaks(event, *neighbours)

    @rule(data=st.data())
    def a_link_is_lost(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.chain))
        self.breaks(Lost(peer.peer_id, "gone", self.now), peer)

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def a_peer_that_has_left_still_speaks(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.left))
        said: list[WireMessage] = [
            fault(FaultCode.INTERNAL),
            Opened(session=SESSION),
            *self.old[-1:],
        ]
        for message in said:
            event = Received(name, message, self.now)
            assert self.protocol.answer(event) is None
            assert self.protocol.reply(event, Opened) is None
            assert not self.protocol.disturbs(event)
        assert self.protocol.answer(Lost(name, "gone", self.now)) is None

    @rule(data=st.data())
    def a_peer_tells_outputs_of_its_layer(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.chain))
        event = Received(peer.peer_id, tapped(1, peer.stage.first), self.now)
        if peer.stage.first not in TAPS.layers:
            self.breaks(event, peer)
            return
        assert self.protocol.answer(event) is None
        assert self.protocol.reply(event, Opened) is None
        assert not self.protocol.disturbs(event)
        self.progress_at = max(self.progress_at, self.now)

    # Replies.

    @rule(data=st.data())
    def a_reply_comes_in_time_or_late(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.chain))
        progress = Progress(session=SESSION, epoch=0, last=0, passed=0)
        event = Received(peer.peer_id, progress, self.now)
        assert self.protocol.answer(event) is None, "late"
        assert self.protocol.reply(event, Opened) is None, "late"
        assert self.protocol.reply(event, Progress) is progress
        self.progress_at = max(self.progress_at, self.now)

    @rule(data=st.data(), confirms=st.booleans())
    def a_peer_is_told_whose_frames_to_accept(self, data: st.DataObject, confirms: bool) -> None:
        peer = data.draw(st.sampled_from(self.chain))
        senders = (f"sender000{data.draw(st.integers(0, 1))}",)
        message = self.protocol.accept_from(peer, senders)
        if message is not None:
            assert self.protocol.accept_from(peer, senders) is not None, "it is not sent yet"
            self.protocol.told(peer, senders)
        assert self.protocol.accept_from(peer, senders) is None
        if confirms:
            said = Accepting(session=SESSION, speakers=senders)
            assert self.protocol.answer(Received(peer.peer_id, said, self.now)) is None
            assert self.protocol.accepts(peer, senders[0])

    @rule()
    def rest(self) -> None:
        self.epoch += 1
        out = self.protocol.rest()
        assert [each.to for each in out] == self.chain
        assert {each.message for each in out} == {Cancel(session=SESSION, epoch=self.epoch)}
        self.flying.clear()
        self.aside.clear()

    def waiting(self) -> list[Sent]:
        """Windows of this epoch whose answers have not been read."""
        unread = [*(each for sent in self.aside for each in sent), *self.flying]
        return [each for each in unread if each.window.epoch == self.epoch]

    @invariant()
    def the_deadline_is_that_of_what_is_in_flight(self) -> None:
        if not hasattr(self, "protocol"):
            return
        current = [sent.at for sent in self.waiting()]
        deadline = self.protocol.deadline
        if not current:
            assert deadline is None
            return
        assert deadline is not None
        assert deadline >= min(current) + self.protocol.patience_s
        assert deadline == pytest.approx(
            max(min(current), self.progress_at) + self.protocol.patience_s
        )

    @invariant()
    def the_last_token_sent_is_known(self) -> None:
        if hasattr(self, "protocol"):
            waiting = [*(s for sent in self.aside for s in sent), *self.flying]
            current = [
                s.window.first + s.count - 1 for s in waiting if s.window.epoch == self.epoch
            ]
            assert self.protocol.last_sent == max(current, default=0)

    def teardown(self) -> None:
        """What is in flight is answered in the end: no window is lost."""
        if not hasattr(self, "protocol"):
            return
        if self.aside:
            self.read_what_was_set_aside()
        waiting = [sent.window for sent in self.waiting()]
        while self.flying:
            self.answer(1)
        assert set(waiting) <= set(self.answered)
        goodbyes = self.protocol.close()
        assert {each.to.peer_id for each in goodbyes} == {peer.peer_id for peer in self.chain}
        assert {each.message for each in goodbyes} == {Close(session=SESSION)}
        assert not self.protocol.close()


TestProtocolAgainstPeers = ProtocolAgainstPeers.TestCase
TestProtocolAgainstPeers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
