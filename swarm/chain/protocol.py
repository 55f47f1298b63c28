"""One session over a chain of peers, as its client sees it: a state machine without I/O.

Events go in, each with the time at which it arrived; messages to send come out as `Outgoing`. There
is one book of the windows in flight (`swarm.chain.in_flight`), one of the peers that take part
(`swarm.chain.members`), and one of the senders that each of them accepts (`swarm.chain.senders`).
Only `ChainProtocol` changes them, and each of its methods is one change.

`swarm.chain.session` is its shell: connections, a queue, and a timer.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from swarm.chain.answer import ChainAnswer
from swarm.chain.beginning import SessionBeginning
from swarm.chain.blame import broken_by, failure
from swarm.chain.events import Event, Lost, Outgoing, Received
from swarm.chain.in_flight import InFlight, NotAsked
from swarm.chain.members import Members, P
from swarm.chain.senders import AcceptedSenders
from swarm.chain.set_aside import SetAside
from swarm.chain.tap_book import TapBook
from swarm.chain.terms import Terms
from swarm.decoding.candidates import CandidateRow
from swarm.decoding.windows import Window
from swarm.errors import ChainBroken
from swarm.wire.candidates import HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.fields import SessionId
from swarm.wire.forks import Fork
from swarm.wire.messages import (
    AcceptFrom,
    Accepting,
    Cancel,
    ChangeTerms,
    Close,
    Fault,
    Frame,
    Hop,
    Open,
    Opened,
    Progress,
    Refined,
    Rerouted,
    Result,
    Tapped,
    TermsChanged,
    WireMessage,
)
from swarm.wire.taps import TapTerms

# replies that may come when they are no longer waited for
LATE = (Progress, Rerouted, Accepting, Refined, TermsChanged)

Reply = TypeVar("Reply", bound=WireMessage)


class ChainProtocol(Generic[P]):
    """Who takes part, what is in flight, what an event means, and whom to blame.

    Attributes:
        id: of the session.
        chain: its peers now.
        parties: all peers that were ever part of the chain, by their ids, and the last place of
            each: what the peers of the chain hold may rest on the work of any of them.
        branches: every peer takes several continuations of one token; known once it is open.
        beginning: what the session begins with, and whether others can begin with it.
    """

    def __init__(self, session: SessionId, chain: Sequence[P], terms: Terms) -> None:
        self.id = session
        self.chain = tuple(chain)
        self.parties = {peer.peer_id: peer for peer in self.chain}
        self.branches = True
        self.beginning = SessionBeginning()
        self._terms = terms
        self._members = Members[P]()
        self._senders = AcceptedSenders()
        self._flight = InFlight()
        self._set_aside = SetAside(terms.most_waiting_bytes)
        self._taps = TapBook()

    # Who takes part.

    def begin_with(self, source: "ChainProtocol[P]", root: int, count: int) -> None:
        """Begin, once it is open, with the first ``count`` tokens of another session on this chain:
        of the text there that ends with the token of serial ``root``, which has been answered."""
        self.beginning.fork = Fork(session=source.id, root=root, count=count)
        self.parties = {**source.parties, **self.parties}

    def join(
        self, peers: Sequence[P], onward: Hop | None, epoch: int, previous: str | None
    ) -> list[Outgoing[P]]:
        """Admit peers that follow each other; return what opens the session on them.

        Args:
            onward: where the last of them sends its outputs; None for the client.
            epoch: frames of older epochs are stale to them.
            previous: the peer that sends to the first of them; None if the client does.
        """
        hops = [*(peer.hop for peer in peers[1:]), onward]
        before = [previous, *(peer.peer_id for peer in peers[:-1])]
        for peer, hop in zip(peers, hops, strict=True):
            self.admit(peer, hop)
        return [
            Outgoing(peer, self.opening(peer, hop, sender, epoch))
            for peer, hop, sender in zip(peers, hops, before, strict=True)
        ]

    def opening(self, peer: P, onward: Hop | None, previous: str | None, epoch: int) -> Open:
        """Return what opens the session on one peer, which accepts frames from the client and from
        the peer ``previous``."""
        self._senders.open(peer.peer_id, previous)
        return Open(
            session=self.id,
            fingerprint=self._terms.fingerprint,
            first=peer.stage.first,
            last=peer.stage.last,
            max_tokens=self._terms.max_tokens,
            next=onward,
            previous=previous,
            epoch=epoch,
            head=self._terms.head if onward is None else None,
            taps=self._terms.taps_of(peer),
            fork=self.beginning.fork,
        )

    def opened(self, peers: Sequence[P], replies: Sequence[Opened]) -> None:
        """Note what peers can do on which the session is open now.

        Raises `ChainBroken` if it does not begin there with what was asked for.
        """
        self.branches = self.branches and all(reply.branches for reply in replies)
        for peer, reply in zip(peers, replies, strict=True):
            self._taps.opened(peer, reply.taps)
            if not self.beginning.opened(reply):
                raise broken_by(peer, "it does not begin as asked", FaultCode.NO_SESSION)
        self.beginning.fork = None

    def admit(self, peer: P, onward: Hop | None, taps: bool = False) -> None:
        """Take a peer's messages from now on; it sends to ``onward``, or to the client.

        Args:
            taps: it has said that it tells outputs of its layers on request.
        """
        self._members.admit(peer, onward)
        self._taps.opened(peer, taps)

    def follow(self, peer: P, onward: Hop | None) -> None:
        """Note who comes next after a peer: it may blame that one, and no other."""
        self._members.follow(peer, onward)

    def leave(self, peers: Collection[P]) -> None:
        """Take no more messages from peers that are no longer part of the chain."""
        self._members.leave(peers)

    def go_on(self, chain: Sequence[P], epoch: int) -> None:
        """Go on with another chain in a newer epoch; nothing that was sent is waited for."""
        self.chain = tuple(chain)
        self.parties |= {peer.peer_id: peer for peer in self.chain}
        self._flight.go_on(epoch)
        self._set_aside.clear()

    def forget(self, peer_id: str) -> None:
        """Note that nothing which the peers hold rests on the work of this one any more."""
        self.parties.pop(peer_id, None)

    def rest(self) -> list[Outgoing[P]]:
        """Discard all that is in flight, and begin a newer epoch, in which another text may go
        on."""
        self._flight.rest()
        self._set_aside.clear()
        self._taps.clear()
        return [Outgoing(peer, self._cancel()) for peer in self.chain]

    def close(self) -> list[Outgoing[P]]:
        """Leave all peers; return what ends the session on them."""
        goodbyes = [Outgoing(peer, Close(session=self.id)) for peer in self._members.peers]
        self._members.leave(self._members.peers)
        return goodbyes

    # Whose frames a peer accepts.

    def accept_from(self, peer: P, senders: tuple[str, ...]) -> AcceptFrom | None:
        """Return what has a peer accept frames from these peers and from no others; None if it was
        told so before. Call `told` once it is sent."""
        if self._senders.is_told(peer.peer_id, senders):
            return None
        self._senders.telling(peer.peer_id)
        return AcceptFrom(session=self.id, speakers=senders)

    def told(self, peer: P, senders: tuple[str, ...]) -> None:
        """Note that a peer was sent what `accept_from` returned."""
        self._senders.told(peer.peer_id, senders)

    def accepts(self, peer: P, sender: str) -> bool:
        """Return whether a peer has confirmed that it accepts frames from another one."""
        return self._senders.accepts(peer.peer_id, sender)

    # Windows and answers.

    def send(self, window: Window, now: float) -> list[Outgoing[P]]:
        """Book a window; return the frame for the first peer, and where a new epoch begins, a
        cancel for each of the others: it overtakes what is on its way."""
        first, *others = self.chain
        frame = Frame(
            session=self.id,
            epoch=window.epoch,
            root=window.root,
            first=window.first,
            tail=window.tail,
            parents=window.parents,
            tokens=window.tokens,
        )
        begins = self._flight.sent(window, now)
        cancels = [Outgoing(peer, self._cancel()) for peer in others if begins]
        return [Outgoing(first, frame), *cancels]

    def answer(self, event: Event) -> ChainAnswer | None:
        """Take an event while an answer is waited for; return the answer if it is one.

        None stands for what changes nothing: a stale answer, a late reply, whatever comes from a
        peer that is not a member or speaks against one.

        Raises:
            ChainBroken: if it tells of a failure, or is one.
            Implausible: if the answer cannot be one of this model.
        """
        if not self._is_news(event):
            return None
        if isinstance(event, Lost):
            raise self.failure(event)
        if isinstance(event.message, LATE):
            return None
        self._flight.progressed(event.at)
        if isinstance(event.message, Tapped):
            self._tapped(event.peer_id, event.message)
            return None
        if not isinstance(event.message, Result):
            raise self.failure(event)
        return self._answer(event.peer_id, event.message, event.at)

    def answer_set_aside(self) -> ChainAnswer | None:
        """Return the first answer that came while replies were waited for, if there is one.

        Raises what `answer` raises.
        """
        while event := self._set_aside.take():
            if answer := self.answer(event):
                return answer
        return None

    # What the peers tell of the model.

    @property
    def head(self) -> HeadTerms | None:
        """On which terms the last peer answers candidates; None if it answers hidden states."""
        return self._terms.head

    @property
    def taps(self) -> TapTerms | None:
        """Which outputs of layers are told; None if none are, or a peer that has one cannot."""
        cannot = any(self._terms.taps_of(peer) for peer in self.chain if not self._taps.can(peer))
        return None if cannot else self._terms.taps

    @property
    def tellers(self) -> frozenset[str]:
        """The ids of the peers that hold a layer whose outputs are told."""
        return frozenset(peer.peer_id for peer in self.chain if self._terms.taps_of(peer))

    @property
    def most_waiting_bytes(self) -> int:
        """How many bytes of messages may wait to be read."""
        return self._terms.most_waiting_bytes

    def change_terms(self, head: HeadTerms | None, taps: TapTerms | None) -> list[Outgoing[P]]:
        """Take other terms for the answers from now on; return what has the peers do so."""
        before, self._terms = self._terms, replace(self._terms, head=head, taps=taps)
        self._set_aside.most_bytes = self._terms.most_waiting_bytes
        changed = self._terms.changed(before, self.chain, self._taps.can)
        return [
            Outgoing(peer, ChangeTerms(session=self.id, head=head, taps=taps))
            for peer, head, taps in changed
        ]

    def refined(
        self, refined: Refined, serial: int, count: int, told: CandidateRow
    ) -> CandidateRow:
        """Return the row that a reply to a `Refine` carries.

        Args:
            told: what the peer told of this prediction before.

        Raises:
            Implausible: if it cannot be that.
        """
        return self._terms.refined(refined, serial, count, told, self.chain[-1])

    @property
    def deadline(self) -> float | None:
        """When the chain has been silent for too long; None while nothing is in flight."""
        return self._flight.deadline

    @property
    def patience_s(self) -> float:
        """How long an answer may take."""
        return self._flight.patience_s

    @property
    def last_sent(self) -> int:
        """The serial of the last token that was sent in this epoch; 0 if there was none."""
        return self._flight.last_sent

    # Other messages.

    def reply(self, event: Event, kind: type[Reply]) -> Reply | None:
        """Take an event while replies of a ``kind`` are waited for; return the reply if it is one.

        An answer is set aside for `answer_set_aside`.

        Raises:
            ChainBroken: if it tells of a failure.
        """
        if not self._is_news(event):
            return None
        if isinstance(event, Lost):
            raise self.failure(event)
        if isinstance(event.message, Result):
            self._set_aside.put(event, event.message)
            return None
        if isinstance(event.message, kind):
            self._flight.progressed(event.at)
            return event.message
        if isinstance(event.message, LATE):
            return None
        if isinstance(event.message, Tapped):
            self._tapped(event.peer_id, event.message)
            return None
        raise self.failure(event)

    def disturbs(self, event: Event) -> bool:
        """Return whether an event matters while the session rests."""
        harmless = isinstance(event, Received) and isinstance(
            event.message, (Result, Tapped, *LATE)
        )
        return self._is_news(event) and not harmless

    # Whom to blame.

    def failure(self, event: Event) -> ChainBroken:
        """Return what an event says against whom. It must come from a member."""
        return failure(event, self._members, self.chain)

    def _is_news(self, event: Event) -> bool:
        """Return whether an event comes from a member, and speaks against none that has left.

        Also note which senders a peer accepts: a confirmation counts whenever it comes.
        """
        message = event.message if isinstance(event, Received) else None
        if isinstance(message, Accepting):
            self._senders.confirmed(event.peer_id, message.speakers)
        if event.peer_id not in self._members:
            return False
        if not isinstance(message, Fault):
            return True
        if message.peer is not None and message.peer not in self._members:
            return False
        return self._members.to_blame(event.peer_id, message, self.chain) is not None

    def _answer(self, peer_id: str, result: Result, at: float) -> ChainAnswer | None:
        last = self.chain[-1]
        if peer_id != last.peer_id:
            raise broken_by(self._members[peer_id], "it answered, and is not the last one")
        try:
            matched = self._flight.answered(result, at)
        except NotAsked as error:
            raise broken_by(last, str(error)) from None
        self._terms.check_kind(result, last)
        if matched is None:
            return None
        measured = matched.measured(result, [peer.stage for peer in self.chain])
        hidden, rows = torch.empty(0, 0), tuple[CandidateRow, ...]()
        if result.candidates is not None:
            rows = tuple(self._terms.candidates(result.candidates, last))
        else:
            hidden = self._terms.hidden_states(result, last)
        taps = self._taps.take_whole(self._terms.taps)
        return ChainAnswer(matched.windows, hidden, measured, at, rows, taps)

    def _tapped(self, peer_id: str, tapped: Tapped) -> None:
        outputs = self._terms.outputs(tapped, self._members[peer_id])
        self._taps.add(tapped.first, tapped.layers, outputs)

    def _cancel(self) -> Cancel:
        return Cancel(session=self.id, epoch=self._flight.epoch)
