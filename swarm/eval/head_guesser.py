"""What a head that reads the target's states guesses along a text that is known already."""

from collections.abc import Sequence

import torch

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.feature_book import FIRST_ANSWERED
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.decoding.windows import Window
from swarm.eval.whole import Whole
from swarm.model.heads.loading import FeatureDraft
from swarm.wire.tensors import MAX_FRAME_TOKENS


class HeadGuesser:
    """Guesses the tokens of a text, each as a head drafts right behind an answer of the target.

    Args:
        target: reads the text here, once.
        text: the prompt's tokens and the new ones.
        start: how many of them are the prompt's.
    """

    def __init__(
        self, head: FeatureDraft, target: Whole, text: Sequence[int], start: int, sampling: Sampling
    ) -> None:
        self._drafter = head.drafter(sampling, Shaping(), frozenset())
        self._position = max(FIRST_ANSWERED, start - head.prompt_features)  # of the next answer
        outputs = []
        for begin in range(0, len(text), MAX_FRAME_TOKENS):
            tokens = tuple(text[begin : begin + MAX_FRAME_TOKENS])
            window = Window(0, 0, begin, tokens, None, len(tokens), begin)
            outputs.append(target.answer_with_outputs(window, head.taps)[1])
        each = torch.cat(outputs)
        self._outputs = each if head.taps else each[:, 0]

    def guess(self, history: Sequence[int]) -> Drafted | None:
        """Return the guess of what follows ``history``; None if the head cannot read it.

        Call it with longer and longer beginnings of the text. The last answer that the head knows
        is the one that decided the last token.
        """
        known = range(self._position, len(history) - 1)
        features = [Feature(each, (), self._outputs[each]) for each in known]
        self._position = max(self._position, known.stop)
        self._drafter.answered(history, features)
        ((*guesses,),) = self._drafter.draft_each(history, [()], 1)
        return guesses[0] if guesses else None
