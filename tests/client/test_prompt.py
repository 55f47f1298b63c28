"""A text becomes a prompt with one token at its beginning, and not with two."""

import pytest

from helpers import tokenizer_kinds
from swarm.client.prompt import encoded


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback", "byte_fallback_as_it_is"])
def tokenizer(request):
    return tokenizer_kinds.KINDS[request.param]()  # all of which begin every text with a token


def test_a_text_that_begins_with_the_first_tokens_name_gets_no_second(tokenizer):
    bos, name = tokenizer.bos_token_id, tokenizer.bos_token
    once = encoded(tokenizer, "a b")
    assert once[0] == bos
    assert tokenizer(f"{name}a b").input_ids[:2] == [bos, bos]  # what it would do by itself
    assert encoded(tokenizer, f"{name}a b").count(bos) == 1
    assert encoded(tokenizer, name) == [bos]
    assert encoded(tokenizer, "") == [bos]


def test_what_stands_elsewhere_or_twice_is_meant(tokenizer):
    bos, name = tokenizer.bos_token_id, tokenizer.bos_token
    assert encoded(tokenizer, f"a{name}").count(bos) == 2
    assert encoded(tokenizer, f"{name}{name}a")[:2] == [bos, bos]


@pytest.mark.parametrize("name", ["word_pieces", "words"])
def test_a_tokenizer_that_begins_no_text_adds_none(name):
    tokenizer = tokenizer_kinds.KINDS[name]()
    begun = (tokenizer.bos_token or tokenizer.eos_token) * 2 + "hi"
    assert encoded(tokenizer, begun) == tokenizer(begun).input_ids
