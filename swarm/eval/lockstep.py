"""Decoding many texts in lockstep: one forward of each model gives all of them their next token.

An evaluation decodes the same prompt in many ways, most of which agree for long. What they agree on
is computed once: a `Branch` is one text with all the writers that have written it so far, and parts
where they part. Texts of several prompts share the forwards, too.

The texts are those of `swarm.eval.engine.InProcess.sample`, which decodes one text as a client
does, window by window.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from swarm.client.detokenizer import Detokenizer, StopStrings
from swarm.client.models import ClientModels
from swarm.decoding.decoder import FinishReason
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.sampling import Sampling
from swarm.eval.head_guesser import HeadGuesser
from swarm.eval.layer_outputs import layer_outputs
from swarm.model.branching import BranchingModel
from swarm.model.cache import KVCache
from swarm.model.heads.loading import FeatureDraft
from swarm.model.work import Work


@dataclass(frozen=True, eq=False)
class Position:
    """What is known where the next token of a text is decided.

    Attributes:
        history: all tokens before, the prompt's included.
        logits: ``[vocabulary]`` float32, the target's.
        guess: the draft's choice; None if no writer wanted it, or the draft cannot read the text.
        left: tokens that the text may still get, this one included.
    """

    history: Sequence[int]
    logits: Tensor
    guess: Drafted | None
    sampling: Sampling
    left: int

    @cached_property
    def choice(self) -> int:
        """The target's choice."""
        return self.sampling.choose(self.logits[None], len(self.history))[0]

    @cached_property
    def log_p(self) -> Tensor:
        """log p, ``[vocabulary]``, at temperature 1."""
        return self.logits.log_softmax(-1)


class Writer(Protocol):
    """Decides how texts go on. One object serves one text; it may send others along other ways."""

    @property
    def ahead(self) -> int:
        """Tokens at the end of its text that were drafted since the last answer it knows."""
        ...

    def wants_guess(self, left: int) -> bool:
        """Return whether it needs the draft's choice to decide the next token.

        Args:
            left: tokens that the text may still get.
        """
        ...

    def write(self, position: Position) -> Iterable[tuple[int, "Writer"]]:
        """Decide the next token: return each token that a text goes on with, and who writes it."""
        ...

    def finish(self, ended: "EndedText") -> None:
        """Take the whole text, at its end."""
        ...


@dataclass(frozen=True)
class EndedText:
    """A text at its end; ``tokens`` are the new ones."""

    tokens: tuple[int, ...]
    text: str
    reason: FinishReason


W_co = TypeVar("W_co", bound=Writer, covariant=True)


@dataclass(frozen=True)
class Assignment(Generic[W_co]):
    """A prompt, and the writers of its texts, which all begin together.

    Attributes:
        stop: strings that end a text.
    """

    prompt: Sequence[int]
    writers: Sequence[W_co]
    sampling: Sampling
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(eq=False)
class _Reading:
    """What one model has read of a text, and what it has still to read, in its own tokens.

    Attributes:
        behind: ``[head]``, the logits behind the last token that it has read.
    """

    cache: KVCache
    unread: list[int]
    behind: Tensor | None = None

    @property
    def length(self) -> int:
        return self.cache.length + len(self.unread)

    def copy(self) -> "_Reading":
        return _Reading(self.cache.copy(), list(self.unread), self.behind)


@dataclass(eq=False)
class _Spelling:
    """The text of the new tokens, up to a stop string."""

    tokens: Detokenizer
    stops: StopStrings
    text: str = ""

    def push(self, token: int) -> None:
        self.text += self.stops.push(self.tokens.push(token))

    def whole(self) -> str:
        """Return the text with all that was held back. Call it once, at the end."""
        return self.text + self.stops.push(self.tokens.flush()) + self.stops.flush()

    def copy(self) -> "_Spelling":
        return _Spelling(self.tokens.copy(), copy(self.stops), self.text)


@dataclass(eq=False)
class _Branch:
    """A text, and the writers that have written it so far.

    Attributes:
        tokens: the prompt's included.
        draft: what a draft model has read; None for a head, which reads ``answers``.
        answers: by position, the target's ``[layers, hidden]`` or ``[hidden]``, for a head.
    """

    task: Assignment[Writer]
    tokens: list[int]
    spelling: _Spelling
    target: _Reading
    draft: _Reading | None
    answers: list[Tensor] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.task.prompt) + self.task.max_new_tokens - len(self.tokens)

    def copy(self) -> "_Branch":
        draft = None if self.draft is None else self.draft.copy()
        spelling = self.spelling.copy()
        answers, tokens = list(self.answers), list(self.tokens)
        return _Branch(self.task, tokens, spelling, self.target.copy(), draft, answers)


class Lockstep:
    """Decodes texts in lockstep. Use it from one thread.

    Args:
        models: whose draft model, if any, is able to branch, or whose draft is a head.
        target: the whole target.
    """

    def __init__(self, models: ClientModels, target: BranchingModel) -> None:
        self.models = models
        self.target = target
        self.draft = None if models.draft is None else models.draft.branching
        self.head = models.draft if isinstance(models.draft, FeatureDraft) else None
        self._guessers: dict[Writer, HeadGuesser] = {}  # of the texts of the last `run`
        self._stop_ids = models.checkpoint.eos_token_ids

    @torch.inference_mode()
    def run(self, assignments: Iterable[Assignment[Writer]]) -> None:
        """Let all writers write their texts to the end."""
        branches = [self._begin(each) for each in assignments if each.writers]
        self._guessers = {}
        while branches:
            rows = self._answer(branches)
            guesses = self._guess(branches)
            written = [self._write(*each) for each in zip(branches, rows, guesses, strict=True)]
            branches = list(chain.from_iterable(written))

    def _begin(self, task: Assignment[Writer]) -> _Branch:
        prompt = list(task.prompt)
        draft = None
        if self.draft is not None and self.models.draft is not None:
            vocabulary = self.models.draft.vocabulary
            own = [*vocabulary.opening, *vocabulary.encode(prompt)]
            draft = _Reading(self.draft.new_cache(), own)
        target = _Reading(self.target.new_cache(), list(prompt))
        detokenizer = Detokenizer(self.models.tokenizer, prompt)
        spelling = _Spelling(detokenizer, StopStrings(task.stop))
        return _Branch(task, prompt, spelling, target, draft, writers=list(task.writers))

    def _answer(self, branches: Sequence[_Branch]) -> Tensor:
        """Return the target's logits behind the texts, ``[n, head]``; keep its answers for a
        head."""
        readings = [branch.target for branch in branches]
        if self.head is None:
            return _read(self.target, readings)
        counts = [len(reading.unread) for reading in readings]
        with layer_outputs(self.target.layers, self.head.taps) as outputs:
            rows = _read(self.target, readings)
        each = outputs.stacked if self.head.taps else outputs.stacked[:, 0]
        for branch, answers in zip(branches, torch.split(each, counts), strict=True):
            branch.answers += answers
        return rows

    def _guess(self, branches: Sequence[_Branch]) -> list[Drafted | None]:
        """Return the draft's choice at the end of each text where a writer wants it."""
        guesses: list[Drafted | None] = [None] * len(branches)
        wanted = [at for at, branch in enumerate(branches) if self._drafts(branch)]
        readings = [reading for at in wanted if (reading := branches[at].draft)]
        if not readings or self.draft is None or self.models.draft is None:
            return guesses
        rows = self.models.draft.vocabulary.project(_read(self.draft, readings))
        for at, row in zip(wanted, rows, strict=True):
            branch = branches[at]
            (token,) = branch.task.sampling.choose(row[None], len(branch.tokens))
            guesses[at] = Drafted(token, row)
        return guesses

    def _drafts(self, branch: _Branch) -> bool:
        """Return whether the draft is wanted, and can read the text."""
        reading = branch.draft
        if self.draft is None or reading is None:
            return False
        fits = 0 < reading.length < self.draft.context
        known = max(reading.unread, default=0) < self.draft.known
        return fits and known and any(each.wants_guess(branch.left) for each in branch.writers)

    def _guess_by_head(self, branch: _Branch, writer: Writer) -> Drafted | None:
        """Return the head's choice for a writer: which answers it knows depends on its loops."""
        if self.head is None or not writer.wants_guess(branch.left):
            return None
        guesser = self._guessers.get(writer)
        if guesser is None:
            guesser = HeadGuesser(self.head, branch.task.sampling, len(branch.task.prompt))
            self._guessers[writer] = guesser
        return guesser.guess(branch.tokens, writer.ahead, branch.answers)

    def _write(self, branch: _Branch, logits: Tensor, guess: Drafted | None) -> list[_Branch]:
        """Return the texts that go on from a branch, each one token longer."""
        position = Position(branch.tokens, logits, guess, branch.task.sampling, branch.left)
        ways: dict[int, list[Writer]] = {}
        for writer in branch.writers:
            by_head = self._guess_by_head(branch, writer)
            known = position if by_head is None else replace(position, guess=by_head)
            for token, who in writer.write(known):
                ways.setdefault(token, []).append(who)
        # Copies first: the branch itself goes on as one of the ways.
        texts = [branch, *(branch.copy() for _ in range(len(ways) - 1))]
        return [
            text
            for text, (token, writers) in zip(texts, ways.items(), strict=False)
            if self._append(text, token, writers)
        ]

    def _append(self, branch: _Branch, token: int, writers: list[Writer]) -> bool:
        """Append a token to a text; return whether the text goes on."""
        branch.tokens.append(token)
        branch.spelling.push(token)
        branch.writers = writers
        branch.target.unread.append(token)
        if branch.draft is not None and self.models.draft is not None:
            branch.draft.unread += self.models.draft.vocabulary.encode([token])
        ended = self._ended(branch)
        if ended is None:
            return True
        for writer in writers:
            writer.finish(ended)
        return False

    def _ended(self, branch: _Branch) -> EndedText | None:
        """Return the whole text if the last token ends it, else None."""
        stopped = branch.tokens[-1] in self._stop_ids or branch.spelling.stops.found
        if branch.left and not stopped:
            return None
        new = tuple(branch.tokens[len(branch.task.prompt) :])
        return EndedText(new, branch.spelling.whole(), "stop" if stopped else "length")


def _read(model: BranchingModel, readings: Sequence[_Reading]) -> Tensor:
    """Read what is unread of some texts; return the logits behind them, ``[n, head]``."""
    behind = [reading for reading in readings if reading.unread]
    if behind:
        batch = [Work.behind(each.cache, torch.tensor(each.unread)) for each in behind]
        for reading, row in zip(behind, model.read_together(batch), strict=True):
            reading.unread.clear()
            reading.behind = row
    rows = [reading.behind for reading in readings if reading.behind is not None]
    assert len(rows) == len(readings)  # a text has at least one token
    return torch.stack(rows)
