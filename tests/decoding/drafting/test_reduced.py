"""A head with some rows gives what the whole head gives for them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from helpers.tokenizer_kinds import byte_fallback, byte_level
from swarm.decoding.drafting.reduced import ReducedVocabulary, used_rows
from swarm.decoding.drafting.vocabulary import SameVocabulary, Translation, Vocabulary

BYTES, PIECES = byte_level(), byte_fallback()
TEXT = "the thing is not in the list, 日"


def translation(draft: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> Translation:
    return Translation(draft, target, len(target) + 3)


WHOLE: list[tuple[Vocabulary, int]] = [
    (SameVocabulary(50), 50),
    (SameVocabulary(50), 64),
    (SameVocabulary(64), 50),
    (translation(BYTES, PIECES), len(BYTES)),
    (translation(PIECES, BYTES), len(PIECES) + 5),
]


@given(st.sampled_from(WHOLE), st.data())
def test_it_projects_what_the_whole_head_projects_and_nothing_else(
    whole: tuple[Vocabulary, int], data: st.DataObject
) -> None:
    vocabulary, head = whole
    rows = torch.tensor(
        data.draw(st.lists(st.integers(0, head - 1), min_size=1, unique=True)), dtype=torch.long
    )
    logits = torch.randn(3, head, generator=torch.Generator().manual_seed(0))
    others = torch.ones(head, dtype=torch.bool)
    others[rows] = False
    expected = vocabulary.project(logits.masked_fill(others, -torch.inf))
    reduced = ReducedVocabulary(vocabulary, rows)
    assert torch.equal(reduced.project(logits[:, rows]), expected)


@given(st.sampled_from(WHOLE))
def test_rows_that_are_not_used_change_nothing(whole: tuple[Vocabulary, int]) -> None:
    vocabulary, head = whole
    rows = used_rows(vocabulary, head)
    assert rows.tolist() == sorted(set(rows.tolist()))
    logits = torch.randn(2, head, generator=torch.Generator().manual_seed(1))
    projected = ReducedVocabulary(vocabulary, rows).project(logits[:, rows])
    assert torch.equal(projected, vocabulary.project(logits))


def test_the_draft_reads_all_of_its_tokens() -> None:
    vocabulary = translation(PIECES, BYTES)
    reduced = ReducedVocabulary(vocabulary, torch.tensor([5, 3]))
    ids = BYTES.encode(TEXT)
    assert reduced.encode(ids) == vocabulary.encode(ids)
    assert reduced.opening == vocabulary.opening


def test_each_token_that_can_be_proposed_is_read_as_the_one_that_its_logit_comes_from() -> None:
    vocabulary = translation(BYTES, PIECES)
    rows = used_rows(vocabulary, len(BYTES))[::2]
    reduced = ReducedVocabulary(vocabulary, rows)
    sources = reduced.project(rows[None].double())[0]
    proposed = sources.isfinite().nonzero().flatten().tolist()
    assert proposed
    for token in proposed:
        assert reduced.encode([token]) == [int(sources[token])]
