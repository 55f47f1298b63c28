"""What happened in a generation so far, in tokens, frames or loops."""

from dataclasses import dataclass, field

from swarm.decoding.acceptance import AcceptanceCounts
from swarm.decoding.confidence import Guess
from swarm.decoding.rules.rule import Decision


@dataclass
class Counts:
    """What the decoder counts; `swarm.outputs.Stats` is made of it.

    Attributes:
        loops: answers that decided something.
        drafted: drafted tokens taken into the tree.
        accepted: drafted tokens that were accepted, first choices only.
        branched: rejections where the target's own token was already sent as a branch.
        relaxed: accepted tokens that are not the target's choice.
        deficit_nats: what the relaxed tokens cost together.
        rejected: first choices that the target overruled.
        key: rejections because a key token was at stake.
        flushes: rejections that made all tokens in flight void.
        waits: times that the text waited for a whole loop, because the chain did not have its last
            token yet.
        frames: frames sent, prompt chunks before the last left out.
        sent: tokens sent behind the prompt, all of which the peers compute.
        held: sent tokens that became part of the text.
        in_flight: sum over all frames of the frames in flight when it was sent, itself included.
        most_in_flight: the most frames in flight at once.
        judged_at: first choices judged, by their place since the last miss.
        kept_at: first choices accepted, likewise.
        histogram: loops by the number of drafted tokens they accepted.
        acceptance: first choices of each source of drafts, by lag.
    """

    loops: int = 0
    drafted: int = 0
    accepted: int = 0
    branched: int = 0
    relaxed: int = 0
    deficit_nats: float = 0.0
    rejected: int = 0
    key: int = 0
    flushes: int = 0
    waits: int = 0
    frames: int = 0
    sent: int = 0
    held: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    judged_at: list[int] = field(default_factory=list)
    kept_at: list[int] = field(default_factory=list)
    histogram: list[int] = field(default_factory=list)
    acceptance: AcceptanceCounts = field(default_factory=AcceptanceCounts)

    def count_loop(self, kept: int) -> None:
        """Count an answer that decided something and accepted ``kept`` drafted tokens."""
        self.loops += 1
        self.histogram += [0] * (kept + 1 - len(self.histogram))
        self.histogram[kept] += 1

    def count_frame(self, tokens: int, in_flight: int) -> None:
        """Count a frame of ``tokens``; ``in_flight`` includes it."""
        self.frames += 1
        self.sent += tokens
        self.in_flight += in_flight
        self.most_in_flight = max(self.most_in_flight, in_flight)

    def count_vote(self, guess: Guess, right: bool) -> None:
        """Count a guess at a place that was decided, if it was its source's first choice."""
        if guess.rank == 0:
            self.acceptance.count(guess.source.value, guess.lag, right)

    def count(self, decision: Decision, place: int) -> None:
        """Count the decision about the ``place``-th drafted position since the last miss."""
        if decision.drafted is None:
            return
        if place == len(self.judged_at):
            self.judged_at.append(0)
            self.kept_at.append(0)
        self.judged_at[place] += 1
        self.kept_at[place] += decision.kept
        self.accepted += decision.kept
        self.branched += decision.branch
        self.relaxed += decision.origin == "relaxed"
        self.deficit_nats += decision.deficit_nats
        self.rejected += not decision.kept
        self.key += decision.key and not decision.kept
