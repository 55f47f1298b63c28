"""Answers of which a part is constrained: thoughts run free, and so does text before a call."""

from dataclasses import dataclass

from swarm.decoding.constraint import Constraint


@dataclass(frozen=True)
class Trigger:
    """A text behind which a constraint holds.

    Attributes:
        marker: one that models write as a token of its own, if the vocabulary has it.
        constraint: of what follows; None leaves it free.
        before: a regular expression; the text before the marker has to end with it.
        final: the answer ends with what is constrained; otherwise free text follows.
    """

    marker: str
    constraint: Constraint | None
    before: str = ""
    final: bool = False


@dataclass(frozen=True)
class Outline:
    """The parts of an answer, in their order: thoughts, and behind them an answer or calls.

    Attributes:
        answer: the constraint of the answer, from its beginning to its end; None leaves it free.
        thoughts: the text with which thoughts open and close, if the model may think.
        begun: the prompt has opened the thoughts.
        calls: the text with which a call may begin in place of a constrained answer; empty if none
            may.
        triggers: looked for in free text, but not in thoughts.
    """

    answer: Constraint | None = None
    thoughts: tuple[str, str] | None = None
    begun: bool = False
    calls: str = ""
    triggers: tuple[Trigger, ...] = ()

    @property
    def owes(self) -> bool:
        """Whether a text must not end before its constrained part."""
        return self.answer is not None or any(trigger.final for trigger in self.triggers)
