"""A draft's vocabulary of which its head has some rows only."""

from collections.abc import Sequence

import torch
from torch import Tensor

from swarm.decoding.drafting.vocabulary import Vocabulary


class ReducedVocabulary:
    """What another vocabulary is to a head with fewer rows.

    The draft reads all of its tokens, and predicts those of its rows. Its distribution is that of
    the whole head, cut to these and normalized again. Rules that use it take it for what it is:
    with q(x) = 0 for the other tokens, rejection sampling stays exact.

    Args:
        whole: the vocabulary of the whole head.
        rows: LongTensor ``[n]``, the draft's tokens that the head has rows for, in their order.
    """

    def __init__(self, whole: Vocabulary, rows: Tensor) -> None:
        self._whole = whole
        self.opening = whole.opening
        sources = _sources(whole, int(rows.max()) + 1)
        place = torch.full((int(rows.max()) + 1,), -1)
        place[rows] = torch.arange(len(rows))
        places = torch.where(sources < 0, -1, place[sources.clamp_min(0)])
        self._size = len(sources)
        self._targets = (places >= 0).nonzero().flatten()
        self._places = places[self._targets]

    def encode(self, tokens: Sequence[int]) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._whole.encode(tokens)

    def project(self, logits: Tensor) -> Tensor:
        """Turn ``[n, rows]`` into ``[n, target vocabulary]``; see `Vocabulary.project`."""
        projected = logits.new_full((logits.shape[0], self._size), -torch.inf)
        projected[:, self._targets] = logits[:, self._places]
        return projected


def used_rows(vocabulary: Vocabulary, head_rows: int) -> Tensor:
    """Return the draft's tokens, LongTensor ``[n]`` ascending, whose logits the vocabulary uses.

    Args:
        head_rows: of the draft's head.
    """
    sources = _sources(vocabulary, head_rows).tolist()
    return torch.tensor(sorted({source for source in sources if source >= 0}), dtype=torch.long)


def _sources(vocabulary: Vocabulary, head_rows: int) -> Tensor:
    """Return the draft's token that each token of the target gets its logit from; -1 for none.

    LongTensor ``[target vocabulary]``. Found out by projecting the tokens' own numbers.
    """
    numbers = torch.arange(head_rows, dtype=torch.float64)
    projected = vocabulary.project(numbers[None])[0]
    return torch.where(projected.isfinite(), projected, -1.0).long()
