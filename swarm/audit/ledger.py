"""One client's record of the honesty of peers: their clean windows, and its suspicions.

A peer is a *suspect* from the first disagreement that it may have caused until its test
(`swarm.audit.sequential`) clears it, unless peers that were part of more disagreements explain all
of its own. It is condemned only if the test says so *and* no other peer was part of all chains that
disagreed with it: an honest peer that always works beside a liar is as suspect as the liar, and
never condemned for it. The record is local and never told to others.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from functools import reduce

from swarm.audit.sequential import Test

FIRST_WINDOWS = 20  # clean windows of a new peer, until which all of its texts are audited
MAX_PEERS = 4096  # that are remembered; those audited longest ago are forgotten first
MAX_DISAGREEMENTS = 256


class Ledger:
    """One client's record of audits.

    Args:
        clean: windows that an audit found right, by peer, from earlier runs.
    """

    def __init__(self, clean: Mapping[str, int] | None = None) -> None:
        self._clean = dict(clean or {})
        self._tests: dict[str, Test] = {}
        self._disagreements: deque[frozenset[str]] = deque(maxlen=MAX_DISAGREEMENTS)
        self._disputes: deque[frozenset[str]] = deque(maxlen=MAX_DISAGREEMENTS)

    @property
    def clean(self) -> Mapping[str, int]:
        """Windows that an audit found right, by peer; the peers audited last come last."""
        return self._clean

    @property
    def suspects(self) -> tuple[str, ...]:
        """Peers under suspicion, the worst first."""
        open_ = [chain & self._tests.keys() for chain in self._disagreements]
        counts = Counter(peer for chain in open_ for peer in chain)
        suspects: set[str] = set()
        for chain in open_:
            most = max((counts[peer] for peer in chain), default=0)
            suspects |= {peer for peer in chain if counts[peer] == most}
        return tuple(sorted(suspects, key=self._rank))

    def _rank(self, peer: str) -> tuple[float, int, str]:
        """Sorts suspects, the worst first."""
        return -self._tests[peer].nats, self._clean.get(peer, 0), peer

    @property
    def worse(self) -> tuple[str, ...]:
        """Peers that accuse each other, without the one with the best record; the worst first."""
        suspects = self.suspects
        disputes = [[peer for peer in suspects if peer in dispute] for dispute in self._disputes]
        worse = {peer for dispute in disputes for peer in dispute[:-1]}
        return tuple(peer for peer in suspects if peer in worse)

    def chance(self, peer_ids: Iterable[str], rate: float) -> float:
        """Return the chance that a text of these peers is audited.

        It is 1 while one of them is new or a suspect, and falls with the length of their records,
        down to ``rate``. A rate of 0 audits nothing.
        """
        if not rate:
            return 0.0
        suspects = set(self.suspects)
        return max((self._chance(peer, rate, peer in suspects) for peer in peer_ids), default=0.0)

    def _chance(self, peer: str, rate: float, suspect: bool) -> float:
        clean = self._clean.get(peer, 0)
        if suspect or clean < FIRST_WINDOWS:
            return 1.0
        return max(rate, min(1.0, FIRST_WINDOWS / clean))

    def agreed(self, peer_ids: Collection[str], windows: int) -> None:
        """Record that ``windows`` of these peers agreed with an independent computation."""
        for peer in peer_ids:
            self._clean[peer] = self._clean.pop(peer, 0) + windows
            if peer in self._tests:
                self._tests[peer] = self._tests[peer].agreed()
                if self._tests[peer].verdict == "cleared":
                    # It stays part of the disagreements: no other peer is condemned in its place.
                    del self._tests[peer]
        while len(self._clean) > MAX_PEERS:
            del self._clean[next(iter(self._clean))]

    def disagreed(self, peer_ids: Collection[str], dispute: bool = False) -> tuple[str, ...]:
        """Record that one of these peers lied, and that it is not known which.

        Those that were suspects before share the blame.

        Args:
            dispute: they answered the same question differently, so that a chain needs only one of
                them.

        Returns:
            The peers condemned by it: none or one.
        """
        chain = frozenset(peer_ids)
        before = chain & set(self.suspects)
        self._disagreements.append(chain)
        if dispute:
            self._disputes.append(chain)
        for peer in chain:
            share = 1 / len(before) if peer in before else 1 / len(chain)
            self._tests[peer] = self._tests.get(peer, Test()).disagreed(share)
        while len(self._tests) > MAX_PEERS:
            del self._tests[next(iter(self._tests))]
        condemned = [peer for peer in self.suspects if peer in chain and self._alone(peer)][:1]
        for peer in condemned:
            self.convicted(peer)
        return tuple(condemned)

    def convicted(self, peer: str) -> None:
        """Record that this peer lied: its disagreements no longer count against other peers."""
        self._clean.pop(peer, None)
        self._tests.pop(peer, None)
        explained = {each for chain in self._disagreements if peer in chain for each in chain}
        for chains in (self._disagreements, self._disputes):
            left = [chain for chain in chains if peer not in chain]
            chains.clear()
            chains.extend(left)
        for other in explained & self._tests.keys():
            if not any(other in chain for chain in self._disagreements):
                del self._tests[other]

    def _alone(self, peer: str) -> bool:
        """Return whether its test condemns a peer, and no other explains all its disagreements."""
        chains = [chain for chain in self._disagreements if peer in chain]
        common = reduce(frozenset.intersection, chains) if chains else frozenset()
        return self._tests[peer].verdict == "condemned" and common == {peer}
