"""Precedence in a GenerationConfig; no field is ignored silently."""

import pytest
import torch
from transformers import GenerationConfig

from swarm.errors import SwarmError, UnsupportedArgument
from swarm.hf.settings import (
    HONOURED,
    NEUTRAL,
    ONLY_WHEN_SAMPLING,
    WITHOUT_EFFECT,
    new_tokens,
    refuse,
    resolve,
    sampling,
    stop_strings,
    token_ids,
)

FIELDS = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
REFUSED = sorted(FIELDS - HONOURED - WITHOUT_EFFECT)


def test_keywords_go_before_the_users_configuration_and_that_before_the_models():
    defaults = GenerationConfig(temperature=0.1, top_p=0.2, top_k=3, eos_token_id=2)
    config = resolve(
        GenerationConfig(temperature=0.5, top_p=0.6, do_sample=True), defaults, {"temperature": 0.9}
    )
    assert (config.temperature, config.top_p, config.top_k, config.eos_token_id) == (0.9, 0.6, 3, 2)


def test_neither_the_users_configuration_nor_the_models_is_changed():
    own, defaults = GenerationConfig(top_k=1), GenerationConfig(top_p=0.5)
    resolve(own, defaults, {"temperature": 0.9, "do_sample": True})
    assert (own.top_p, own.temperature, defaults.top_k) == (None, None, None)


def test_every_field_that_transformers_has_is_honoured_refused_or_without_effect():
    assert FIELDS >= HONOURED
    assert not HONOURED & WITHOUT_EFFECT
    assert set(NEUTRAL) | ONLY_WHEN_SAMPLING <= FIELDS - HONOURED - WITHOUT_EFFECT
    assert "num_beams" in REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_named(name):
    config = GenerationConfig(do_sample=True)
    refuse(config)
    setattr(config, name, 7)
    with pytest.raises(UnsupportedArgument, match=f"^{name} = 7 is not possible: ") as caught:
        refuse(config)
    assert isinstance(caught.value, SwarmError)


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_value_that_asks_for_nothing_is_taken(name):
    config = GenerationConfig()
    setattr(config, name, NEUTRAL[name])
    refuse(config)


@pytest.mark.parametrize("name", sorted(ONLY_WHEN_SAMPLING))
def test_what_matters_only_when_sampling_is_left_alone_without(name):
    config = GenerationConfig()
    setattr(config, name, 0.5)
    refuse(config)


def test_an_argument_that_nobody_knows_is_refused():
    with pytest.raises(
        UnsupportedArgument, match=r"^inputs_embeds = 3 is not possible: peers take token ids"
    ):
        resolve(None, GenerationConfig(), {"inputs_embeds": 3})
    resolve(None, GenerationConfig(), {"past_key_values": None})


@pytest.mark.parametrize("wrong", [{"max_new_tokens": -1}, {"num_return_sequences": 2}])
def test_what_transformers_itself_refuses_is_told_in_its_words(wrong):
    with pytest.raises(UnsupportedArgument, match=next(iter(wrong))):
        resolve(None, GenerationConfig(), wrong)


def test_no_text_is_no_number_of_texts():
    with pytest.raises(
        UnsupportedArgument,
        match=r"^num_return_sequences = 0 is not possible: give a positive number",
    ):
        refuse(GenerationConfig(num_return_sequences=0))


def test_a_long_value_is_named_by_its_kind():
    assert "labels = (Tensor) is not possible" in str(
        UnsupportedArgument("labels", torch.zeros(99), "leave it out")
    )


def test_without_do_sample_texts_are_greedy_whatever_else_is_set():
    assert sampling(GenerationConfig(temperature=0.5, top_k=3)) == {"temperature": 0.0}


def test_defaults_of_sampling_are_those_of_transformers():
    assert sampling(GenerationConfig(do_sample=True)) == {
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "min_p": 0.0,
    }
    given = GenerationConfig(do_sample=True, temperature=0.5, top_k=0, top_p=0.9, min_p=0.1)
    assert sampling(given) == {"temperature": 0.5, "top_k": 0, "top_p": 0.9, "min_p": 0.1}


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ({}, 20),
        ({"max_new_tokens": 7}, 7),
        ({"max_length": 25}, 15),
        ({"max_length": 25, "max_new_tokens": 7}, 7),
    ],
)
def test_how_many_tokens_are_written_behind_ten(given, tokens):
    assert new_tokens(GenerationConfig(**given), 10, 1000) == tokens


def test_by_default_the_context_is_not_passed():
    assert new_tokens(GenerationConfig(), 10, 16) == 6


def test_an_input_that_is_too_long_already_is_refused():
    with pytest.raises(
        UnsupportedArgument,
        match=r"^max_length = 10 is not possible: the input has 10 tokens already",
    ):
        new_tokens(GenerationConfig(max_length=10), 10, None)


@pytest.mark.parametrize(
    ("ids", "read"), [(None, ()), (2, (2,)), ([2, 3], (2, 3)), (torch.tensor([2, 3]), (2, 3))]
)
def test_token_ids_come_in_several_ways(ids, read):
    assert token_ids(ids) == read


@pytest.mark.parametrize(
    ("strings", "read"), [(None, ()), ("end", ("end",)), (["a", "b"], ("a", "b"))]
)
def test_stop_strings_come_in_several_ways(strings, read):
    assert stop_strings(GenerationConfig(stop_strings=strings)) == read
