"""The demo tokenizer spells numbers digit by digit and can write any text."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from swarm.demo import DRAFT, MODELS, TARGET
from swarm.demo.problems import problems
from swarm.demo.tokenizer import CHAT_TEMPLATE, END, PAD, START, VOCAB_SIZE, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=1000)


def pieces(tokenizer, text):
    return [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_the_vocabulary_has_the_size_that_the_models_have(tokenizer):
    assert len(tokenizer) == VOCAB_SIZE
    assert [tokenizer.convert_tokens_to_ids(token) for token in (PAD, START, END)] == [0, 1, 2]
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == (PAD, START, END)


def test_training_again_gives_the_same_tokenizer(tokenizer):
    assert train_tokenizer(texts=1000).get_vocab() == tokenizer.get_vocab()


def test_every_digit_is_a_token_of_its_own(tokenizer):
    assert pieces(tokenizer, "1234567890") == list("1234567890")
    assert pieces(tokenizer, "12 + 30 = 42") == ["1", "2", " + ", "3", "0", " = ", "4", "2"]
    assert not [
        token for token in tokenizer.get_vocab() if len(token) > 1 and any(map(str.isdigit, token))
    ]


def test_an_operator_with_its_spaces_is_one_token(tokenizer):
    for operator in (" + ", " - ", " * ", " / ", " = "):
        assert pieces(tokenizer, operator) == [operator]


def test_common_words_are_one_token(tokenizer):
    assert pieces(tokenizer, " Then she has") == [" Then", " she", " has"]


def test_a_text_begins_with_the_start_token_and_only_there(tokenizer):
    ids = tokenizer("Problem: Mia has 4 eggs.")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert not set(ids[1:]) & set(tokenizer.all_special_ids)


def test_problems_come_back_as_they_were(tokenizer):
    for problem in islice(problems(1, held_out=True), 100):
        assert (
            tokenizer.decode(tokenizer(problem.text)["input_ids"], skip_special_tokens=True)
            == problem.text
        )


@settings(deadline=None)
@given(st.text().filter(lambda text: "<|" not in text))
def test_any_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_it_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Problem: 3 boxes, naïve 日本."
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("model", [TARGET, DRAFT])
def test_the_shipped_tokenizers_have_the_chat_template(model):
    assert AutoTokenizer.from_pretrained(MODELS / model).chat_template == CHAT_TEMPLATE
