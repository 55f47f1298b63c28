"""What happened in a generation so far, in tokens, frames or loops."""

from dataclasses import dataclass, field

from swarm.decoding.rules.rule import Decision


@dataclass
class Counts:
    """Counted by the decoder; `swarm.outputs.Stats` is made of it."""

    loops: int = 0  # answers that decided something
    drafted: int = 0  # drafted tokens taken into the tree
    accepted: int = 0  # drafted tokens that were kept, first choices only
    # tokens of the target's own that had been sent ahead as another choice of the draft's
    branched: int = 0
    relaxed: int = 0  # of the accepted, kept though the target would have said otherwise
    deficit_nats: float = 0.0  # what the relaxed ones cost together
    rejected: int = 0  # first choices overruled by the target
    key: int = 0  # of these, overruled because a key token was at stake
    flushes: int = 0  # turns of the text that made void all that was sent ahead
    # times that the text had to wait for a whole loop: the chain did not have its last token yet
    waits: int = 0
    frames: int = 0  # sent, prompt chunks before the last left out
    sent: int = 0  # tokens sent behind the prompt: what the peers computed
    held: int = 0  # of these, those that became part of the text
    # sum over all frames of the frames in flight when it was sent, itself included
    in_flight: int = 0
    most_in_flight: int = 0
    # first choices judged, by place since the last miss
    judged_at: list[int] = field(default_factory=list)
    kept_at: list[int] = field(default_factory=list)  # of these, kept
    # loops by the number of drafted tokens they kept
    histogram: list[int] = field(default_factory=list)

    def count_loop(self, kept: int) -> None:
        """Take note of an answer that decided something."""
        self.loops += 1
        self.histogram += [0] * (kept + 1 - len(self.histogram))
        self.histogram[kept] += 1

    def count_frame(self, tokens: int, in_flight: int) -> None:
        """Take note of a frame, and of how many are in flight with it."""
        self.frames += 1
        self.sent += tokens
        self.in_flight += in_flight
        self.most_in_flight = max(self.most_in_flight, in_flight)

    def count(self, decision: Decision, place: int) -> None:
        """Take note of what became of a position that was the ``place``-th drafted one in a row."""
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
