"""Which peer of a silent chain stands still: decided from repeated looks, without I/O."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from swarm.chain.in_flight import PROMPT_TIMEOUT_S
from swarm.wire.messages import Progress

STANDSTILL_S = 2.0  # of a peer that has nothing of the session to compute
# of a peer that has: a batch may be a chunk of another session's prompt, on a slow host
BATCH_S = 10.0


@dataclass(frozen=True)
class Verdict:
    """What a look tells.

    Attributes:
        over: no further look is needed.
        peer_id: of the peer that stands still; None if the chain makes progress.
    """

    over: bool
    peer_id: str | None = None


UNDECIDED = Verdict(over=False)
PROGRESS = Verdict(over=True)


class Standstill:
    """Compares looks at all peers of a chain that has not answered.

    The chain makes progress as soon as the session has come further at any peer. If it does not for
    long enough, the peer that is `first_behind` stands still. A busy peer, which has frames of the
    session in its queue, is given time as long as it ends batch after batch: other sessions may
    come first there. On a slow host the replay of a long text takes many times as long as any loop
    before, so a peer that was sent one gets the time of a prompt, which is the most for any.

    Args:
        chain: the ids of its peers.
        last_sent: the serial of the last token that the client sent.
        replaying: peers that were sent the text again, and may still compute it.
        first: how far each peer had come at the first look.
        now: when that was, in seconds of the caller's clock.
    """

    def __init__(
        self,
        chain: Sequence[str],
        last_sent: int,
        replaying: Collection[str],
        first: Mapping[str, Progress],
        now: float,
    ) -> None:
        self._chain = chain
        self._last_sent = last_sent
        self._replaying = replaying
        self._before = first
        self._since = now
        self._worked_at = now  # when the peer that is behind ended a batch

    def look(self, progress: Mapping[str, Progress], now: float) -> Verdict:
        """Compare a look at all peers with the one before."""
        before, self._before = self._before, progress
        peer_id = first_behind(self._chain, self._last_sent, progress)
        if peer_id is None or _places(progress) != _places(before):
            return PROGRESS
        behind = progress[peer_id]
        if behind.queued and behind.batches != before[peer_id].batches:
            self._worked_at = now
        patience_s = BATCH_S if behind.queued else STANDSTILL_S
        if peer_id in self._replaying:
            patience_s = PROMPT_TIMEOUT_S
        if now - self._worked_at >= patience_s or now - self._since >= PROMPT_TIMEOUT_S:
            return Verdict(over=True, peer_id=peer_id)
        return UNDECIDED


def first_behind(
    chain: Sequence[str], last_sent: int, progress: Mapping[str, Progress]
) -> str | None:
    """Return the first peer that was sent more than it has sent on: it hangs, or the link to it
    does. None if every peer has sent on all that it was sent."""
    due = last_sent
    for peer_id in chain:
        passed = progress[peer_id].passed
        if passed < due:
            return peer_id
        due = passed
    return None


def _places(progress: Mapping[str, Progress]) -> dict[str, tuple[int, int, int]]:
    """Return how far the session has come at each peer."""
    return {peer_id: (each.epoch, each.last, each.passed) for peer_id, each in progress.items()}
