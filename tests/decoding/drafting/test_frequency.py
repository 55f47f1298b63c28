"""Which tokens count as frequent, by tokenizers that were trained on a text."""

from collections import Counter

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from swarm.decoding.drafting.frequency import most_frequent

TEXT = ["the quick fox and the lazy dog", "the dog and the fox", "lazy is the dog, and the fox"] * 3
RARE = ["zebra crossing queue"]


def trained(characters_last: bool) -> PreTrainedTokenizerFast:
    """Byte-pair encoding, with the characters behind the merges, as sentencepiece has them, or
    before."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(special_tokens=["<s>"], show_progress=False)
    plain.train_from_iterator([*TEXT, *RARE], trainer)
    vocabulary = plain.get_vocab()
    if characters_last:
        seen = Counter("".join(TEXT).replace(" ", "\u2581"))
        order = sorted(vocabulary, key=lambda t: (len(t) == 1, -seen[t], vocabulary[t]))
        vocabulary = {token: i for i, token in enumerate(order)}
    merges = [
        (token[:cut], token[cut:])
        for token in sorted(vocabulary, key=vocabulary.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<s>")


@pytest.mark.parametrize("characters_last", [True, False], ids=["sentencepiece", "first"])
def test_what_is_taken_covers_texts_like_those_that_the_tokenizer_was_trained_on(
    characters_last: bool,
) -> None:
    tokenizer = trained(characters_last)
    size = len(tokenizer)
    taken = set(most_frequent(tokenizer, range(size), size * 2 // 3))
    ids = [token for line in TEXT for token in tokenizer(line)["input_ids"]]
    rare = [token for line in RARE for token in tokenizer(line)["input_ids"]]
    covers, covers_rare = (
        sum(token in taken for token in tokens) / len(tokens) for tokens in (ids, rare)
    )
    assert covers > 0.8 > covers_rare


def test_as_many_are_taken_as_are_wanted_and_those_that_texts_cannot_do_without() -> None:
    tokenizer = trained(True)
    size = len(tokenizer)
    eos = tokenizer.eos_token_id
    for count in (0, 1, 8, size):
        taken = most_frequent(tokenizer, range(size), count, always=[size - 1])
        assert taken == sorted(set(taken))
        assert {eos, size - 1} <= set(taken)
        assert len(taken) == min(count + 2, size)
    assert most_frequent(tokenizer, range(5), size, always=[size - 1]) == [0, 1, 2, 3, 4]
    assert most_frequent(tokenizer, [], size) == []


def test_the_most_frequent_characters_are_taken_wherever_they_stand() -> None:
    tokenizer = trained(True)
    space = tokenizer.convert_tokens_to_ids("\u2581")
    assert space > len(tokenizer) // 2
    assert space in most_frequent(tokenizer, range(len(tokenizer)), 8)
