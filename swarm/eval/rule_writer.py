"""Writing a text by a rule and a window, as a client does that waits for every window."""

from collections.abc import Iterable

from swarm.decoding.rules.rule import Decision, Rule
from swarm.eval.lockstep import EndedText, Position
from swarm.eval.sample import EvalSample
from swarm.outputs import Piece


class RuleWriter:
    """Writes one text, and keeps how each token was decided.

    Args:
        rule: judges drafted tokens; it serves this text only.
        window: drafted tokens in a loop; 0 decodes plainly.
    """

    def __init__(self, rule: Rule, window: int = 0) -> None:
        self.rule = rule
        self.window = window
        self._pieces: list[Piece] = []
        self._place = 0  # in its loop of the next token
        self._loops = 0
        self._drafted = 0
        self._log_p = 0.0
        self._ended: EndedText | None = None

    @property
    def sample(self) -> EvalSample:
        """The text, once it has ended."""
        assert self._ended is not None
        return EvalSample(
            self._ended.text,
            tuple(self._pieces),
            self._ended.reason,
            self._loops,
            self._drafted,
            self._log_p / len(self._pieces),
        )

    @property
    def ahead(self) -> int:
        """See `Writer.ahead`."""
        return self._place

    def wants_guess(self, left: int) -> bool:
        """See `Writer.wants_guess`.

        The last token of a text is not drafted, as the target's answer before it decides it.
        """
        return self._place < self.window and left > 1

    def write(self, position: Position) -> Iterable[tuple[int, "RuleWriter"]]:
        """See `Writer.write`."""
        guess = position.guess if self.wants_guess(position.left) else None
        if not self._place:
            self._loops += 1
            self._drafted += min(self.window, position.left - 1) if guess else 0
        (decision,) = self.rule.judge(
            position.logits[None], position.history, [guess] if guess else [], [position.choice]
        )
        self._place = self._place + 1 if decision.kept else 0
        self._note(decision, position)
        return [(decision.token, self)]

    def _note(self, decision: Decision, position: Position) -> None:
        self._log_p += float(position.log_p[decision.token])
        self._pieces.append(
            Piece(
                token_id=decision.token,
                text="",  # the sample has the whole text
                origin=decision.origin,
                drafted_id=decision.drafted,
                choice_id=decision.token if decision.choice is None else decision.choice,
                deficit_nats=decision.deficit_nats,
                key=decision.key,
                reason=decision.reason,
            )
        )

    def finish(self, ended: EndedText) -> None:
        """See `Writer.finish`."""
        self._ended = ended


class DraftWriter(RuleWriter):
    """Writes what the draft alone would, as a control."""

    def wants_guess(self, left: int) -> bool:
        """See `Writer.wants_guess`."""
        return True

    def write(self, position: Position) -> Iterable[tuple[int, RuleWriter]]:
        """See `Writer.write`. Where the draft cannot read the text, the target goes on."""
        token = position.choice if position.guess is None else position.guess.token
        self._loops += 1
        self._note(Decision(token, None), position)
        return [(token, self)]
