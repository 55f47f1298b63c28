"""The arguments of generate become options of the SDK."""

import pytest
import torch
from transformers import GenerationConfig

from swarm.errors import UnsupportedArgument
from swarm.hf.arguments import mask_of, read_call, unpadded
from swarm.request import Options, Request

INPUTS = torch.tensor([[0, 0, 5, 6], [7, 0, 8, 9]])
DEFAULTS = GenerationConfig(eos_token_id=2, pad_token_id=0, bos_token_id=1)


def call(inputs=INPUTS, mask=None, config=None, defaults=DEFAULTS, criteria=(), **more):
    return read_call(inputs, mask, config, defaults, 1000, criteria, more)


def test_what_is_said_in_our_options():
    said = call(
        max_new_tokens=9, repetition_penalty=1.2, stop_strings="end", window=3, logit_bias={5: 1.0}
    )
    ours: Options = {
        "max_new_tokens": 9,
        "repetition_penalty": 1.2,
        "stop": ["end"],
        "stop_token_ids": [2],
        "seed": 1,
    }
    ours |= {"window": 3, "logit_bias": {5: 1.0}}
    assert Request.of(said.options | {"seed": 1}) == Request.of(ours)


def test_pad_tokens_are_padding_where_no_mask_says_so():
    assert call().prompts == ((5, 6), (7, 8, 9))


def test_pad_tokens_are_text_where_they_may_end_one():
    assert call(pad_token_id=2, eos_token_id=[2, 3]).prompts == ((0, 0, 5, 6), (7, 0, 8, 9))
    assert call(defaults=GenerationConfig(eos_token_id=0)).prompts == ((0, 0, 5, 6), (7, 0, 8, 9))


def test_a_mask_has_the_last_word():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    assert call(mask=mask).prompts == ((0, 5, 6), (7, 0, 8, 9))


def test_padding_at_the_end_is_refused():
    with pytest.raises(UnsupportedArgument, match=r"attention_mask .* pad on the left side"):
        call(mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]))


def test_the_filling_is_the_pad_token_or_the_first_that_ends_a_text():
    assert call().pad_token_id == 0
    assert call(defaults=GenerationConfig(eos_token_id=[4, 2])).pad_token_id == 4
    assert call(defaults=GenerationConfig()).pad_token_id is None


def test_where_texts_may_end_at_different_places_a_filling_is_needed():
    with pytest.raises(UnsupportedArgument, match=r"^pad_token_id = None"):
        call(defaults=GenerationConfig(), stop_strings="end")
    call(INPUTS[:1], defaults=GenerationConfig(), stop_strings="end")


def test_every_sequence_has_its_prompt_and_seed():
    said = call(num_return_sequences=2, do_sample=True, seed=40)
    assert said.prompts == ((5, 6), (5, 6), (7, 8, 9), (7, 8, 9))
    assert said.inputs.tolist() == INPUTS.repeat_interleave(2, dim=0).tolist()
    assert [said.options_of(row).get("seed") for row in range(4)] == [40, 41, 42, 43]


def test_torch_draws_the_seed():
    torch.manual_seed(5)
    first, second = call(do_sample=True).seed, call(do_sample=True).seed
    torch.manual_seed(5)
    assert call(do_sample=True).seed == first != second


def test_greedy_texts_draw_nothing():
    before = torch.get_rng_state()
    assert call().seed is None
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_are_kept_only_where_a_dictionary_is_returned():
    flags = {"output_scores": True, "output_hidden_states": True}
    without, with_dictionary = call(**flags), call(return_dict_in_generate=True, **flags)
    assert (without.scores, without.options["logits"], without.options["hidden_states"]) == (
        False,
        False,
        False,
    )
    assert with_dictionary.scores
    assert not with_dictionary.logits
    assert (with_dictionary.options["logits"], with_dictionary.options["hidden_states"]) == (
        True,
        True,
    )


def test_without_inputs_a_text_begins():
    assert call(inputs=None).prompts == ((1,),)
    with pytest.raises(UnsupportedArgument, match="no token that begins a text"):
        call(inputs=None, defaults=GenerationConfig())


def test_a_limit_of_time_is_a_criterion():
    (criterion,) = call(max_time=0.0).criteria
    assert bool(criterion(INPUTS, None).all())


@pytest.mark.parametrize(
    "inputs", [torch.zeros(3), torch.zeros(1, 2), torch.zeros(1, 0, dtype=torch.long), [[1]]]
)
def test_what_is_no_batch_of_token_ids_is_refused(inputs):
    with pytest.raises(UnsupportedArgument, match=r"^input_ids = .* give a tensor of token ids"):
        mask_of(inputs, None)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(UnsupportedArgument, match=r"its shape is not that of input_ids, \(2, 4\)"):
        mask_of(INPUTS, torch.ones(2, 3))


def test_padding_may_lie_anywhere():
    assert unpadded(INPUTS, torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]]).bool()) == [(0, 6), (0, 8)]
