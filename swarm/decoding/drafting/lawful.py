"""Drafts under masks: what no source may guess is taken out of what it drafted."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.mask import Mask


def lawful(masks: Sequence[Mask], answer: Sequence[int], line: Sequence[Drafted]) -> list[Drafted]:
    """Return the beginning of a drafted line, without the tokens that the masks ban.

    A source that knows no masks may guess a banned token. Its next choice takes the token's place,
    and the line ends there; without one the line ends before.
    """
    kept: list[Drafted] = []
    path = list(answer)
    for guess in line if masks else ():
        bans = [banned for mask in masks if (banned := mask.banned(path)) is not None]
        others = tuple(other for other in guess.others if _allowed(bans, other[0]))
        if not _allowed(bans, guess.token):
            if others and guess.logits is None:
                (token, confidence), *rest = others
                kept.append(replace(guess, token=token, confidence=confidence, others=tuple(rest)))
            break
        kept.append(replace(guess, others=others) if len(others) < len(guess.others) else guess)
        path.append(guess.token)
    return kept if masks else list(line)


def _allowed(bans: Sequence[Tensor], token: int) -> bool:
    return all(token < len(banned) and not banned[token] for banned in bans)
