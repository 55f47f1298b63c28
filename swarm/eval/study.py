"""What single misses do to a text, one at a time: ``swarm eval --study``.

The target writes its own text, and the draft guesses every token of it. Where the guess is not the
target's choice, the rules are asked what they would do. At a share of these misses a *probe* goes
another way: it takes the drafted token, once, and from there on the target's choices again. So the
consequences of one miss are known apart from those of all others, and apart from what a rule thinks
of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from swarm.decoding.rules.choose import Verification
from swarm.decoding.rules.lexicon import Fences, Lexicon
from swarm.decoding.rules.relaxed import Miss
from swarm.decoding.rules.signals import agreement, entropy, top1_gap
from swarm.decoding.sampling import NoisePurpose, uniform
from swarm.eval.lockstep import EndedText, Position, Writer
from swarm.eval.tasks import Item

REST_TOKENS = 48  # behind a miss, that are compared with the target's own text
# No rule but a blind one lets many dearer misses pass. So these are probed less often.
CHEAP_NATS = 1.0
DEAR_SHARE = 0.1  # of the share of cheap misses that are probed


@dataclass(frozen=True)
class ProbeText:
    """A text that took one drafted token, and then the target's choices.

    Attributes:
        tokens: behind the drafted one, at most `REST_TOKENS`.
        log_p: of each of them under the target.
        right: whether the answer is right; None if no program can tell.
        weight: how many misses of about this cost it stands for.
    """

    tokens: tuple[int, ...]
    log_p: tuple[float, ...]
    right: bool | None
    weight: float


@dataclass(frozen=True)
class MissFacts:
    """A drafted token that was not the target's choice.

    Attributes:
        position: of the token in the answer, from 0 on.
        deficit_nats: log p(choice) - log p(drafted).
        gap, contrast, agreement: the signals, as `swarm.decoding.rules.signals` defines them.
        classes: of key tokens that the choice or the drafted token belong to.
        passes: by rule, whether it would let the miss pass.
        probe: the text that went on with it, if that was tried.
    """

    position: int
    choice: int
    drafted: int
    deficit_nats: float
    gap: float
    contrast: float
    agreement: float
    classes: tuple[str, ...]
    passes: Mapping[str, bool]
    probe: ProbeText | None = None


@dataclass(frozen=True)
class StudiedText:
    """The target's answer to one item, and the misses of the draft along it.

    Attributes:
        kind: of work, see `Item`.
        log_p: of each token under the target.
        right: whether the answer is right; None if no program can tell.
        drafted: positions at which the draft guessed.
    """

    kind: str
    tokens: tuple[int, ...]
    log_p: tuple[float, ...]
    right: bool | None
    drafted: int
    misses: tuple[MissFacts, ...]

    def rest(self, miss: MissFacts) -> slice:
        """Return the places of the tokens behind a miss, at most `REST_TOKENS`."""
        return slice(miss.position + 1, miss.position + 1 + REST_TOKENS)


class MissJudge:
    """Notes what rules and signals make of a miss.

    Args:
        rules: relaxed ones, by name. Each is asked as at the beginning of a text.
    """

    def __init__(self, rules: Mapping[str, Verification], lexicon: Lexicon) -> None:
        self.rules = rules
        self.lexicon = lexicon

    def facts(self, position: Position, start: int) -> MissFacts:
        """Return the facts of a miss, without a probe.

        Args:
            start: tokens of the prompt.
        """
        guess = position.guess
        assert guess is not None
        miss = Miss(position.history, position.choice, guess, position.logits, position.sampling)
        assert miss.draft is not None  # the guess is a model's
        tokens = (position.choice, guess.token)
        classes = {self.lexicon.key(token, position.history) for token in tokens} - {""}
        if Fences(self.lexicon.decode).inside(position.history):
            classes.add("code")
        return MissFacts(
            position=len(position.history) - start,
            choice=position.choice,
            drafted=guess.token,
            deficit_nats=miss.deficit_nats,
            gap=top1_gap(miss.target),
            contrast=entropy(miss.draft) - entropy(miss.target),
            agreement=agreement(miss.target, miss.draft),
            classes=tuple(sorted(classes)),
            passes=dict(self._verdicts(position)),
        )

    def _verdicts(self, position: Position) -> Iterator[tuple[str, bool]]:
        assert position.guess is not None
        drafted = [position.guess]
        for name, verification in self.rules.items():
            rule = verification.rule(position.sampling, self.lexicon)
            (decision,) = rule.judge(
                position.logits[None], position.history, drafted, [position.choice]
            )
            yield name, decision.kept


@dataclass(eq=False)
class Scout:
    """Writes the target's own text, notes the misses of the draft, and sends probes.

    Args:
        start: tokens of the prompt.
        share: of the misses up to `CHEAP_NATS` that are probed; of dearer ones, `DEAR_SHARE` of it.
    """

    item: Item
    judge: MissJudge
    start: int
    share: float
    _log_p: list[float] = field(default_factory=list, init=False)
    _drafted: int = field(default=0, init=False)
    _misses: list[MissFacts] = field(default_factory=list, init=False)
    _probers: dict[int, "Prober"] = field(default_factory=dict, init=False)  # by position
    _ended: EndedText | None = field(default=None, init=False)

    @property
    def ahead(self) -> int:
        """See `Writer.ahead`."""
        return 0

    def wants_guess(self, left: int) -> bool:
        """See `Writer.wants_guess`."""
        return left > 1

    def write(self, position: Position) -> Iterable[tuple[int, Writer]]:
        """See `Writer.write`."""
        ways: list[tuple[int, Writer]] = [(position.choice, self)]
        self._log_p.append(float(position.log_p[position.choice]))
        if position.guess is None:
            return ways
        self._drafted += 1
        if position.guess.token != position.choice:
            miss = self.judge.facts(position, self.start)
            self._misses.append(miss)
            drawn = uniform(position.sampling.seed, len(position.history), NoisePurpose.ACCEPT)
            share = self.share * (1.0 if miss.deficit_nats <= CHEAP_NATS else DEAR_SHARE)
            if drawn < share:
                self._probers[miss.position] = Prober(self.item, 1 / share)
                ways.append((miss.drafted, self._probers[miss.position]))
        return ways

    def finish(self, ended: EndedText) -> None:
        """See `Writer.finish`."""
        self._ended = ended

    @property
    def facts(self) -> StudiedText:
        """All that was found, once the text and its probes have ended."""
        assert self._ended is not None
        return StudiedText(
            self.item.kind,
            self._ended.tokens,
            tuple(self._log_p),
            _is_right(self.item, self._ended),
            self._drafted,
            tuple(self._probed(miss) for miss in self._misses),
        )

    def _probed(self, miss: MissFacts) -> MissFacts:
        prober = self._probers.get(miss.position)
        return miss if prober is None else replace(miss, probe=prober.probe)


@dataclass(eq=False)
class Prober:
    """Writes the target's choices behind one drafted token.

    Stops where its text is no longer looked at: `REST_TOKENS` on if no program checks the answer.
    """

    item: Item
    weight: float
    _tokens: list[int] = field(default_factory=list, init=False)
    _log_p: list[float] = field(default_factory=list, init=False)
    _right: bool | None = field(default=None, init=False)

    @property
    def ahead(self) -> int:
        """See `Writer.ahead`."""
        return 0

    def wants_guess(self, left: int) -> bool:
        """See `Writer.wants_guess`."""
        return False

    def write(self, position: Position) -> Iterable[tuple[int, Writer]]:
        """See `Writer.write`."""
        if len(self._tokens) >= REST_TOKENS and self.item.check is None:
            return ()
        self._tokens.append(position.choice)
        self._log_p.append(float(position.log_p[position.choice]))
        return ((position.choice, self),)

    def finish(self, ended: EndedText) -> None:
        """See `Writer.finish`."""
        self._right = _is_right(self.item, ended)

    @property
    def probe(self) -> ProbeText:
        """What was found, once the text has ended."""
        tokens = tuple(self._tokens[:REST_TOKENS])
        log_p = tuple(self._log_p[:REST_TOKENS])
        return ProbeText(tokens, log_p, self._right, self.weight)


def _is_right(item: Item, ended: EndedText) -> bool | None:
    return None if item.check is None else item.check(ended.text)
