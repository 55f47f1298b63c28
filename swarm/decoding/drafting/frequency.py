"""Which tokens of a vocabulary are frequent, as its tokenizer tells without a text to count in."""

from collections.abc import Collection, Iterable
from itertools import islice

from transformers import PreTrainedTokenizerBase

# Of the tokens that are wanted, as many may be single characters that no merge makes: those of all
# languages, the most frequent ones first.
CHARACTERS_SHARE = 1 / 8


def most_frequent(
    tokenizer: PreTrainedTokenizerBase,
    among: Collection[int],
    count: int,
    always: Iterable[int] = (),
) -> list[int]:
    """Return ``count`` tokens that are likely to be the most frequent ones, and those that texts
    cannot do without, in ascending order.

    A tokenizer is trained on texts, and the ids of its tokens are ranks. Byte-pair encoding merges
    the most frequent pair first; a unigram model is sorted by probability. Only characters that no
    merge makes stand elsewhere: byte-level vocabularies begin with them, those of sentencepiece end
    with them, by frequency. (Zhao et al. 2025, "FR-Spec", arXiv 2502.14856, count in a text; ranks
    need none in the user's language, and cover less.)

    Args:
        among: tokens that may be returned.
        always: tokens that are returned besides, as special ones are.
    """
    allowed = set(among)
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(token for token, each in added if each.special)}
    needed = allowed & (special | set(always))
    spelled = {token: text for text, token in tokenizer.get_vocab().items()}
    ordinary = sorted(token for token in spelled if token in allowed and token not in needed)
    characters = (token for token in ordinary if len(spelled[token]) == 1)
    frequent = set(islice(characters, int(count * CHARACTERS_SHARE)))
    others = (token for token in ordinary if token not in frequent)
    return sorted(needed | frequent | set(islice(others, count - len(frequent))))
