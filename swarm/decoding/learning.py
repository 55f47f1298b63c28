"""What is learned from a decided place: chances of guesses, the draft's errors, statistics."""

from swarm.decoding.calibration import Calibration
from swarm.decoding.confidence import Confidence
from swarm.decoding.counts import Counts
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.drafting.correction import Correction
from swarm.decoding.drafting.drafter import Source


def learn(
    place: DraftNode,
    token: int,
    confidence: Confidence,
    counts: Counts,
    correction: Correction | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Learn from all that was guessed behind a place, where ``token`` follows.

    Args:
        correction: of the source that draws its guesses from a distribution; None learns nothing.
        calibration: of a head that reads the target's states; None without one.
    """
    for child in place.children:
        for vote in child.votes:
            right = child.token == token
            confidence.observe(vote.guess, right)
            counts.count_vote(vote.guess, right)
            first_of_head = vote.guess.source is Source.FEATURES and not vote.guess.rank
            if calibration is not None and first_of_head:
                calibration.observe(vote.guess.lag, right)
    if correction is not None:
        for drafted in place.proposals.values():
            if drafted.logits is not None:
                correction.learn(place.token, drafted, token)
