"""The mask of an answer of which a part is constrained, as its outline says.

Where a part begins is a function of the text before it. So the mask is one, too: alike for plain
and for drafted text.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

import torch
from torch import Tensor

from swarm.client.token_texts import BLANKS, TokenTexts
from swarm.decoding.drafting.prefix import common_prefix
from swarm.decoding.outline import Outline, Trigger

SIGN_CHARS = 256  # of free text that are looked at for what has to stand before a marker
MAX_GAP = 2  # blank tokens between a marker and what is constrained
ANSWER = -1  # the number of the answer's constraint, among those of triggers


class AnswerMask(Protocol):
    """The mask of a constrained answer. Any thread may call it."""

    def banned(self, answer: Sequence[int]) -> Tensor | None:
        """See `swarm.decoding.mask.Mask`."""
        ...

    def forced(self, answer: Sequence[int]) -> list[int]:
        """See `swarm.decoding.drafting.forced.Forcing`."""
        ...

    def ends(self, answer: Sequence[int]) -> bool:
        """Return whether nothing may follow a committed answer: it is complete.

        Raises:
            ConstraintFailed: if the constraint does not allow it, although each token was allowed.
        """
        ...


class PartMask(AnswerMask, Protocol):
    """The mask of one part, which is called with the tokens of that part alone."""

    def completes(self, answer: Sequence[int]) -> bool:
        """Return whether the constraint allows these tokens, and none behind them."""
        ...


class OutlineStage(Enum):
    THOUGHTS = auto()
    FREE = auto()
    BEGINS = auto()  # the first token of a part, or of what may stand in its place
    BOUND = auto()  # within a constrained part


@dataclass(frozen=True, slots=True)
class OutlinePlace:
    """Where a text is in its outline.

    Attributes:
        text: the whole text of the stage where a part begins; the end of it in free text.
        owes: the text must not end here.
        part: the number of the constraint that holds; None where none does.
        start: the place of the part's first token in the answer.
        gap: the blank tokens that may still come before it.
        may_think: thoughts may begin here.
    """

    stage: OutlineStage
    text: str = ""
    owes: bool = False
    part: int | None = None
    start: int = 0
    gap: int = 0
    may_think: bool = False


class OutlineMask:
    """The mask of one answer with an outline. Any thread may call it.

    Args:
        parts: the masks of the constraints, by the number of their trigger, or `ANSWER`.
        ends: tokens that end a text.
    """

    def __init__(
        self,
        outline: Outline,
        parts: Mapping[int, PartMask],
        texts: TokenTexts,
        ends: frozenset[int],
    ) -> None:
        self._outline = outline
        self._parts = parts
        self._texts = texts
        self._ends = texts.of(ends)
        bounding = [each.marker for each in outline.triggers if each.constraint is not None]
        self._bounding = tuple(dict.fromkeys(bounding))  # one for many functions
        self._signs = [_sign(trigger) for trigger in outline.triggers]
        markers = [each.marker for each in outline.triggers] + [*(outline.thoughts or ())]
        signs = any(each.before for each in outline.triggers)
        self._kept_chars = max(map(len, markers), default=0) + SIGN_CHARS * signs
        self._lock = threading.Lock()
        self._read: list[int] = []  # the answer that was read last
        self._places = [self._first()]  # before each of its tokens, and behind the last one

    def banned(self, answer: Sequence[int]) -> Tensor | None:
        """See `AnswerMask.banned`."""
        with self._lock:
            place = self._behind(answer)
            if place.part is None:
                return self._banned_in_free_text(place)
            if place.stage is OutlineStage.BOUND:
                return self._parts[place.part].banned(answer[place.start :])
            return self._banned_at_beginning(place, tuple(answer[place.start :]))

    def forced(self, answer: Sequence[int]) -> list[int]:
        """See `AnswerMask.forced`."""
        with self._lock:
            place = self._behind(answer)
            waits = place.gap == MAX_GAP or bool(self._instead(place))
            if place.part is None or (place.stage is OutlineStage.BEGINS and waits):
                return []
            return self._parts[place.part].forced(answer[place.start :])

    def ends(self, answer: Sequence[int]) -> bool:
        """See `AnswerMask.ends`."""
        with self._lock:
            place = self._behind(answer)
            if place.part is None or place.stage is not OutlineStage.BOUND:
                return False
            part = self._parts[place.part]
            return self._is_last(place.part) and part.ends(answer[place.start :])

    # What may follow.

    def _banned_in_free_text(self, place: OutlinePlace) -> Tensor | None:
        bans = [self._texts.beyond(place.text, marker) for marker in self._markers(place)]
        if place.owes:
            bans.append(self._ends)
        some = [banned for banned in bans if banned is not None]
        return torch.stack(some).any(0) if len(some) > 1 else next(iter(some), None)

    def _banned_at_beginning(self, place: OutlinePlace, begun: tuple[int, ...]) -> Tensor:
        """Return what may not follow where a part begins, of which there are these tokens."""
        assert place.part is not None
        banned = self._parts[place.part].banned(begun)
        if banned is None:  # the beginning of something else
            banned = torch.ones(self._texts.vocabulary, dtype=torch.bool)
        allowed = ~banned
        if place.gap:
            allowed |= self._texts.blank
        for text in self._instead(place):
            path = self._texts.path(text)
            if path[: len(begun)] == begun and len(begun) < len(path):
                allowed[path[len(begun)]] = True
        return ~allowed

    def _markers(self, place: OutlinePlace) -> Sequence[str]:
        """Return the markers that end this free text."""
        if place.stage is not OutlineStage.THOUGHTS:
            return self._bounding
        thoughts = self._outline.thoughts
        return [] if thoughts is None or self._outline.answer is None else [thoughts[1]]

    def _instead(self, place: OutlinePlace) -> Sequence[str]:
        """Return the texts with which something else may begin than the part."""
        thoughts, calls = self._outline.thoughts, self._outline.calls
        found = [thoughts[0]] if place.may_think and thoughts is not None else []
        return [*found, calls] if calls and place.part == ANSWER else found

    def _is_last(self, part: int) -> bool:
        return part == ANSWER or self._outline.triggers[part].final

    # Where the text is.

    def _behind(self, answer: Sequence[int]) -> OutlinePlace:
        """Return the place behind an answer."""
        same = common_prefix(self._read, answer)
        del self._read[same:]
        del self._places[same + 1 :]
        for token in answer[same:]:
            self._read.append(token)
            self._places.append(self._next(self._places[-1], token))
        return self._places[-1]

    def _first(self) -> OutlinePlace:
        outline = self._outline
        if outline.thoughts is not None and outline.begun:
            return OutlinePlace(OutlineStage.THOUGHTS, owes=outline.owes)
        part = None if outline.answer is None else ANSWER
        thinks = outline.thoughts is not None
        if part is None and not thinks:
            return OutlinePlace(OutlineStage.FREE, owes=outline.owes)
        return OutlinePlace(OutlineStage.BEGINS, owes=outline.owes, part=part, may_think=thinks)

    def _next(self, place: OutlinePlace, token: int) -> OutlinePlace:
        """Return the place behind the token that was read last."""
        if place.stage is OutlineStage.BOUND:
            return self._in_part(place)
        text = place.text + self._texts.all[token]
        if place.stage is OutlineStage.THOUGHTS:
            return self._in_thoughts(place, text)
        if place.stage is OutlineStage.FREE:
            return self._in_free_text(place, text)
        if not place.text and place.gap and self._texts.blank[token]:
            return replace(place, start=len(self._read), gap=place.gap - 1)
        return self._at_beginning(place, text)

    def _in_thoughts(self, place: OutlinePlace, text: str) -> OutlinePlace:
        assert self._outline.thoughts is not None
        _, closing, rest = text.partition(self._outline.thoughts[1])
        if not closing:
            return replace(place, text=text[-self._kept_chars :])
        if self._outline.answer is None:
            return self._in_free_text(
                OutlinePlace(OutlineStage.FREE, owes=self._outline.owes), rest
            )
        return self._before_part(ANSWER, rest)

    def _in_free_text(self, place: OutlinePlace, text: str) -> OutlinePlace:
        for number, trigger in enumerate(self._outline.triggers):
            at = text.find(trigger.marker, max(0, len(place.text) - len(trigger.marker) + 1))
            if at < 0 or not self._signs[number].search(text[:at]):
                continue
            rest = text[at + len(trigger.marker) :]
            if trigger.constraint is None:
                return OutlinePlace(OutlineStage.FREE, rest)
            if not rest.strip(BLANKS):
                return self._before_part(number, rest)
        return replace(place, text=text[-self._kept_chars :])

    def _at_beginning(self, place: OutlinePlace, text: str) -> OutlinePlace:
        outline = self._outline
        begun = text.lstrip(BLANKS) if place.part is None else text
        for instead in self._instead(place):
            if instead.startswith(begun) and begun != instead:
                return replace(place, text=text)
            if begun.startswith(instead):
                if instead == outline.calls:
                    return self._in_free_text(OutlinePlace(OutlineStage.FREE), begun)
                thoughts = OutlinePlace(OutlineStage.THOUGHTS, owes=outline.owes)
                return self._in_thoughts(thoughts, begun[len(instead) :])
        if place.part is None:
            return self._in_free_text(OutlinePlace(OutlineStage.FREE, owes=outline.owes), text)
        return self._in_part(OutlinePlace(OutlineStage.BOUND, part=place.part, start=place.start))

    def _before_part(self, part: int, blank: str) -> OutlinePlace:
        """Return the place before a part, of which the last token has a blank already."""
        gap = MAX_GAP - bool(blank)
        return OutlinePlace(
            OutlineStage.BEGINS, owes=True, part=part, start=len(self._read), gap=gap
        )

    def _in_part(self, place: OutlinePlace) -> OutlinePlace:
        assert place.part is not None
        if self._is_last(place.part):
            return place
        complete = self._parts[place.part].completes(self._read[place.start :])
        return OutlinePlace(OutlineStage.FREE) if complete else place


def _sign(trigger: Trigger) -> re.Pattern[str]:
    """Return what the text before a trigger's marker has to end with."""
    return re.compile(rf"(?:{trigger.before})\Z")
