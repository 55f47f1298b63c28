"""Vocabularies in GGUF files give the tokens that their models were trained with."""

from typing import Any

import pytest

from helpers.gguf_files import Content
from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.gguf.header import parse
from swarm.model.gguf.metadata import Metadata
from swarm.model.gguf.tokenizer import implied_merges, make_tokenizer

BASIC = ["<unk>", "<s>", "</s>"]
CONTROL = 3
USER = 4


def tokenizer(architecture: str = "llama", **keys: Any) -> Any:
    metadata = {"general.architecture": architecture}
    for key, value in keys.items():
        metadata["tokenizer." + ("" if key == "chat_template" else "ggml.") + key] = value
    header = parse("m", "f", Content(metadata).bytes())
    return make_tokenizer(Metadata("m", "f", header))


def byte_level(pre: str = "gpt-2", words: tuple[str, ...] = (), **keys: Any) -> Any:
    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ", "Ã", "©"]
    tokens = [*BASIC, *letters, "he", "hel", "12", *words]
    kinds = [2, CONTROL, CONTROL, *[1] * (len(letters) + 3), *[USER] * len(words)]
    settings = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": kinds,
        "merges": ["h e", "he l", "1 2"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return tokenizer(**{**settings, **keys})


def sentencepiece(**keys: Any) -> Any:
    bytes_ = [f"<0x{code:02X}>" for code in range(256)]
    tokens = [*BASIC, *bytes_, "▁", "a", "b", "ab", "▁ab", "  "]
    kinds = [2, CONTROL, CONTROL, *[6] * 256, 1, 1, 1, 1, 1, USER]
    settings = {
        "model": "llama",
        "tokens": tokens,
        "token_type": kinds,
        "scores": [*[0.0] * 259, -4.0, -5.0, -6.0, -1.0, -2.0, -3.0],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return tokenizer(**{**settings, **keys})


def words_of(made: Any, text: str) -> list[str]:
    return made.convert_ids_to_tokens(made(text).input_ids)


def test_bytes_are_merged_within_words() -> None:
    made = byte_level()
    assert words_of(made, "hello é") == ["hel", "l", "o", "Ġ", "Ã", "©"]
    assert made.decode(made("hello é").input_ids) == "hello é"
    assert (made.bos_token, made.eos_token, made.unk_token) == ("<s>", "</s>", "<unk>")


@pytest.mark.parametrize(
    ("pre", "digits"),
    [("gpt-2", ["12", "3"]), ("smollm", ["1", "2", "3"]), ("qwen2", ["1", "2", "3"])],
)
def test_digits_are_split_as_the_vocabulary_says(pre: str, digits: list[str]) -> None:
    assert words_of(byte_level(pre), "123") == digits


def test_a_splitting_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="'brand-new'"):
        byte_level("brand-new")
    with pytest.raises(UnsupportedModel, match="of the kind 'bert'"):
        byte_level(model="bert")


def test_special_and_added_words_stay_whole() -> None:
    made = byte_level(words=("<think>",))
    assert words_of(made, "he</s><think>") == ["he", "</s>", "<think>"]
    assert made.decode(made("he</s><think>").input_ids, skip_special_tokens=True) == "he<think>"


@pytest.mark.parametrize(
    ("keys", "ids"),
    [
        ({}, []),
        ({"add_bos_token": True}, [1]),
        ({"add_bos_token": True, "add_eos_token": True}, [1, 2]),
    ],
)
def test_texts_begin_and_end_as_the_file_says(keys: dict[str, bool], ids: list[int]) -> None:
    assert byte_level(**keys)("").input_ids == ids


def test_llama_3_takes_whole_words_and_begins_texts() -> None:
    assert words_of(byte_level("llama-bpe"), "12") == ["<s>", "12"]


def test_sentencepiece_merges_what_its_scores_imply() -> None:
    made = sentencepiece()
    assert words_of(made, "ab ab") == ["<s>", "▁ab", "▁ab"]
    assert words_of(made, "b") == ["<s>", "▁", "b"]
    assert words_of(made, "é")[-2:] == ["<0xC3>", "<0xA9>"]
    assert made.decode(made("ab abé").input_ids, skip_special_tokens=True) == "ab abé"


def test_a_file_may_say_that_texts_get_no_space_in_front() -> None:
    made = sentencepiece(add_space_prefix=False, add_bos_token=False)
    assert words_of(made, "ab  b") == ["ab", "▁▁", "b"]
    assert made.decode(made(" ab").input_ids) == " ab"


def test_merges_are_in_order_of_the_scores_of_what_they_make() -> None:
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}
    merges = implied_merges(vocabulary, [0, 0, 0, 9, 1, 5])
    assert merges == [("b", "c"), ("a", "bc"), ("ab", "c"), ("a", "b")]


def test_the_chat_template_comes_along() -> None:
    template = "{% for m in messages %}<s>{{ m.content }}{% endfor %}"
    made = byte_level(chat_template=template)
    text = made.apply_chat_template([{"role": "user", "content": "he"}], tokenize=False)
    assert text == "<s>he"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tokens": [1, 2]}, "not an array of texts"),
        ({"tokens": ["x" * 2000]}, "a token of 2,000 characters"),
        ({"bos_token_id": 9999}, "bos_token_id is 9999"),
        ({"merges": ["no merge"]}, "gives no tokenizer"),
        ({"add_bos_token": 3}, "not true or false"),
        ({"token_type": ["x"]}, "not an array of numbers"),
    ],
)
def test_a_damaged_vocabulary_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(DamagedModel, match=words):
        byte_level(**keys)


def test_a_vocabulary_without_scores_and_merges_is_refused() -> None:
    with pytest.raises(DamagedModel, match="without a score for each token"):
        sentencepiece(scores=[0.0])
