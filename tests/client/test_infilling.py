"""Prompts for the text between two others, in the form of each family."""

import pytest
from transformers import AddedToken

from helpers import tokenizer_kinds
from swarm.client.infilling import FORMS, infilling_of

PREFIX, SUFFIX = "one two", " three"


def tokenizer_with(tokens, kind="byte_level"):
    tokenizer = tokenizer_kinds.KINDS[kind]()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    return tokenizer


def parts_of(form):
    return [token for token in (form.prefix, form.suffix, form.middle) if token]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.prefix)
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "byte_fallback_as_it_is"])
def test_the_middle_follows_both_parts_in_the_order_of_the_family(form, kind):
    tokenizer = tokenizer_with([*parts_of(form), "<|file_sep|>"], kind)
    infilling = infilling_of(tokenizer)
    assert infilling.form == form
    ids = infilling.prompt(PREFIX, SUFFIX)
    assert ids[0] == tokenizer.bos_token_id
    names = {number: token for token, number in infilling.ids.items()}
    parts = {}
    for number in ids[1:]:
        if number in names:
            parts[names[number]] = []
        else:
            parts[next(reversed(parts))].append(number)
    first = [form.suffix, form.prefix] if not form.middle else [form.prefix, form.suffix]
    assert list(parts) == [*first, *([form.middle] if form.middle else [])]
    texts = {token: tokenizer.decode(part) for token, part in parts.items()}
    assert texts[form.prefix] == PREFIX
    assert texts[form.suffix].lstrip() == SUFFIX.lstrip()
    assert infilling.prompt(PREFIX, SUFFIX, begun=False) == ids[1:]
    ends = {*parts_of(form), "<|file_sep|>"}
    assert infilling.ends == set(tokenizer.convert_tokens_to_ids(sorted(ends)))


def test_a_suffix_gets_no_space_that_is_not_there():
    """SentencePiece begins every text with one; the prefix begins the text, the suffix does not."""
    tokenizer = tokenizer_with(["▁<PRE>", "▁<SUF>", "▁<MID>"], "byte_fallback")
    ids = infilling_of(tokenizer).prompt("a", "b")
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["<s>", "▁<PRE>", "▁", "a", "▁<SUF>", "b", "▁<MID>"]


def test_a_model_without_such_tokens_is_not_asked():
    assert infilling_of(tokenizer_kinds.byte_level()) is None
    assert infilling_of(tokenizer_with(["<fim_prefix>", "<fim_suffix>"])) is None
