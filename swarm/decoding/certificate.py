"""The choice of a token from logits that are known within bounds only, and the proof that it holds.

Every step from logits to a choice (penalty, bias, temperature, noise) never decreases in any logit,
rounding included. So bounds of the logits become bounds of the scores that decide, by the same
code. A token whose upper score is below the best lower score cannot win. The logits of the others,
the *contenders*, are computed exactly; then the choice is that of exact logits, ties included.

The bounds may come from anywhere. A client with an int8 copy of the LM head has approximations, and
the greatest error that each of them may have (`swarm.model.kernels.rounded_head`). An answer that
lists the logits of some tokens has equal bounds for these; for all others it has the lower bound
-inf, and as the upper one what the least listed logit leaves them (`swarm.decoding.partial` does
the same for such answers from the listed tokens alone, and a test holds the two together). A caller
that cannot compute a single logit allows no contenders (``most = 0``), and asks for more where that
does not suffice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swarm.decoding.nucleus import Nucleus
from swarm.decoding.sampling import Sampling, best_of, gumbel_noise
from swarm.decoding.shaping import Shaping

# Contenders of a row, beyond which a product with the whole head takes no longer.
MAX_CONTENDERS = 4096
# With top k or top p, the likeliest tokens are computed exactly in any case: few, then more, until
# the choice is certain.
LIKELIEST = (64, 1024)

Refine = Callable[[Tensor, Tensor], Tensor]
"""Return the exact logits, ``[m]`` float32, at some rows ``[m]`` and tokens ``[m]``."""


@dataclass(frozen=True)
class Bounds:
    """What is known of logits: each lies between its two bounds; where these are equal, exactly.

    Attributes:
        lower: ``[n, vocabulary]`` float32 on the CPU; may be -inf.
        upper: the same; may be infinite.
    """

    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Choosing:
    """How the target chooses the token behind each of ``n`` places. Any thread may use it.

    Attributes:
        text: all committed tokens.
        paths: for each place, the tokens behind the text up to and including the place.
    """

    sampling: Sampling
    shaping: Shaping
    text: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    def shape(self, logits: Tensor) -> Tensor:
        """Return the rows with penalties and biases: the same tensor if there are none."""
        return self.shaping.apply_each(logits, self.text, self.paths)

    def position(self, row: int) -> int:
        """Return the position in the text of the token that a row predicts."""
        return len(self.text) + len(self.paths[row])

    def choose(self, logits: Tensor) -> list[int]:
        """Return the choice of each row ``[n, vocabulary]`` of exact logits."""
        shaped = self.shape(logits)
        return [
            self.sampling.choose(shaped[row : row + 1], self.position(row))[0]
            for row in range(len(shaped))
        ]


@dataclass(frozen=True)
class Certificate:
    """What bounds tell of the choices.

    Attributes:
        choices: for each row the token that exact logits choose; None if the bounds do not tell.
        refined: for each row, how many logits were computed exactly.
    """

    choices: list[int | None]
    refined: list[int]


@torch.inference_mode()
def certify(
    bounds: Bounds, choosing: Choosing, refine: Refine, most: int = MAX_CONTENDERS
) -> Certificate:
    """Choose from bounds, which are narrowed in place.

    A row has no choice if it takes more than ``most`` exact logits at once, if a bound or an exact
    logit is not a number, or if top k or top p may or may not leave the choice out.
    """
    return _Certifying(bounds, choosing, refine, most).certificate()


class _Certifying:
    """The work of `certify`."""

    def __init__(self, bounds: Bounds, choosing: Choosing, refine: Refine, most: int) -> None:
        self._bounds = bounds
        self._choosing = choosing
        self._refine = refine
        self._most = most
        self._given_up = torch.zeros(len(bounds.lower), dtype=torch.bool)
        self._refined = torch.zeros(len(bounds.lower), dtype=torch.long)

    def certificate(self) -> Certificate:
        """Do the work. To be called once."""
        sampling = self._choosing.sampling
        vocabulary = self._bounds.lower.shape[-1]
        # The best logit: greedy decoding chooses it, and temperatures are relative to it.
        choices = self._best(self._shaped)
        if sampling.temperature and (0 < sampling.top_k < vocabulary or sampling.top_p < 1.0):
            choices = [self._restricted(row) for row in range(len(choices))]
        elif sampling.temperature:
            choices = self._best(self._scored)
        given_up = self._given_up.tolist()
        told = [None if up else choice for up, choice in zip(given_up, choices, strict=True)]
        return Certificate(told, self._refined.tolist())

    def _shaped(self) -> tuple[Tensor, Tensor]:
        shape = self._choosing.shape
        return shape(self._bounds.lower), shape(self._bounds.upper)

    def _scored(self) -> tuple[Tensor, Tensor]:
        """Return bounds of the scores by which sampling chooses, top k and top p left out.

        Call it once the best logit is exact: the scores are relative to it.
        """
        rows = range(len(self._bounds.lower))
        noise = torch.stack([self._noise(row) for row in rows])
        sampling = self._choosing.sampling
        lower, upper = (sampling.floor(sampling.scale(shaped)) for shaped in self._shaped())
        return lower.add_(noise), upper.add_(noise)

    def _noise(self, row: int) -> Tensor:
        vocabulary = self._bounds.lower.shape[-1]
        return gumbel_noise(self._choosing.sampling.seed, self._choosing.position(row), vocabulary)

    def _best(self, scores: Callable[[], tuple[Tensor, Tensor]]) -> list[int | None]:
        """Return the tokens with the best scores; give up rows where they are not certain."""
        lower, upper = scores()
        best = lower.amax(dim=-1, keepdim=True)
        self._given_up |= ~best.isfinite()[:, 0]
        # Not ">=": what is not a number contends.
        if self._take(*_places((upper < best).logical_not_())):
            lower, _ = scores()
        return [best_of(row) for row in lower]

    def _take(self, rows: Tensor, tokens: Tensor) -> bool:
        """Get the exact logits of some tokens; return whether there are any that were not exact.

        Gives up rows that want too many.
        """
        inexact = self._bounds.lower[rows, tokens] != self._bounds.upper[rows, tokens]
        counts = torch.bincount(rows[inexact], minlength=len(self._refined))
        self._given_up |= counts > self._most
        wanted = inexact & ~self._given_up[rows]
        rows = rows[wanted]
        tokens = tokens[wanted]
        if not len(rows):
            return False
        logits = self._refine(rows, tokens)
        self._bounds.lower[rows, tokens] = logits
        self._bounds.upper[rows, tokens] = logits
        self._given_up[rows[~(logits < torch.inf)]] = True
        self._refined += torch.bincount(rows, minlength=len(self._refined))
        return True

    # With top k or top p, one row at a time.

    def _restricted(self, row: int) -> int | None:
        """Return the choice of a row, or give it up."""
        for count in LIKELIEST:
            if self._given_up[row]:
                return None
            upper = self._bounds.upper[row]
            self._take_row(row, upper.topk(min(count, len(upper))).indices)
            choice = self._best_allowed(row)
            if choice is not None:
                return choice
        self._given_up[row] = True
        return None

    def _take_row(self, row: int, tokens: Tensor) -> None:
        self._take(torch.full_like(tokens, row), tokens)

    def _best_allowed(self, row: int) -> int | None:
        """Return the token with the best score of those that top k and top p keep; None if the
        bounds do not tell."""
        noise = self._noise(row)
        while not self._given_up[row]:
            lower, upper = self._scaled_row(row)
            nucleus = Nucleus(lower, upper, self._choosing.sampling)
            best = _first_kept(lower, upper, noise, nucleus)
            if best is None:
                return None
            rivals = (upper + noise >= lower[best] + noise[best]) & (lower != upper)
            rivals &= nucleus.possible
            if not bool(rivals.any()):
                return best
            self._take_row(row, rivals.nonzero()[:, 0])
        return None

    def _scaled_row(self, row: int) -> tuple[Tensor, Tensor]:
        choosing = self._choosing
        one = Choosing(
            choosing.sampling, choosing.shaping, choosing.text, choosing.paths[row : row + 1]
        )
        lower = one.shape(self._bounds.lower[row : row + 1])
        upper = one.shape(self._bounds.upper[row : row + 1])
        return choosing.sampling.scale(lower)[0], choosing.sampling.scale(upper)[0]


def _places(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and the tokens that are marked in ``[n, vocabulary]``, in order."""
    flat = torch.from_numpy(np.flatnonzero(marked.numpy()))  # ten times as fast as torch's
    vocabulary = marked.shape[-1]
    return flat // vocabulary, flat % vocabulary


def _first_kept(lower: Tensor, upper: Tensor, noise: Tensor, nucleus: Nucleus) -> int | None:
    """Return the token with the best score of the kept ones that are known exactly.

    None if the bounds do not tell whether it, or an exactly known one with a better score, is kept.
    """
    known = (lower == upper) & nucleus.possible
    scores = torch.where(known, lower + noise, -torch.inf)
    for _ in range(len(scores)):
        best = best_of(scores)
        if scores[best] == -torch.inf:
            return None
        kept = nucleus.keeps(best)
        if kept or kept is None:
            return best if kept else None
        scores[best] = -torch.inf
    return None
