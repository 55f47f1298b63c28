"""A swarm generates the same tokens as transformers for the same arguments."""

import threading
from collections.abc import Iterator

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    MaxLengthCriteria,
    MinPLogitsWarper,
    TextIteratorStreamer,
)
from transformers.generation.streamers import BaseStreamer

from helpers.loopback import PATIENCE_S
from helpers.swarm_in_thread import ThreadedSwarm
from swarm import SwarmModel, UnsupportedArgument
from swarm.demo import DRAFT, TARGET, locate
from swarm.errors import PromptTooLong

PROMPTS = [
    "Problem: Mia has 12 coins.",
    "Problem: Amir has 333 roses. A year later he has 2 times that number.",
    "Pro",
]
NEW = 16


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(locate(TARGET), padding_side="left")


@pytest.fixture(scope="module")
def batch(tokenizer):
    return tokenizer(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)


@pytest.fixture(scope="module")
def theirs():
    return AutoModelForCausalLM.from_pretrained(locate(TARGET), dtype=torch.float32)


@pytest.fixture(scope="module")
def model(threaded: ThreadedSwarm) -> Iterator[SwarmModel]:
    with SwarmModel.from_pretrained(
        locate(TARGET), draft=locate(DRAFT), network=threaded.network
    ) as model:
        yield model


ALIKE = {
    "defaults": {},
    "greedy": {"max_new_tokens": NEW, "do_sample": False},
    "penalty": {"max_new_tokens": NEW, "repetition_penalty": 1.4},
    "total length": {"max_length": 50},
    "another end": {"max_new_tokens": NEW, "eos_token_id": [2, 300, 320, 400], "pad_token_id": 9},
    "no end": {"max_new_tokens": NEW, "eos_token_id": None},
    "configuration": {
        "generation_config": GenerationConfig(max_new_tokens=7, repetition_penalty=1.1)
    },
}


@pytest.mark.parametrize("arguments", ALIKE.values(), ids=ALIKE)
def test_a_batch_is_continued_as_transformers_does(arguments, model, theirs, batch):
    ours = model.generate(**batch, **arguments)
    assert ours.dtype == torch.long
    assert ours.tolist() == theirs.generate(**batch, **arguments).tolist()


def test_texts_that_end_are_filled_up(model, theirs, batch):
    # one row says it, the others may not
    end = theirs.generate(**batch, max_new_tokens=NEW)[0, -NEW // 2].item()
    ours = model.generate(**batch, max_new_tokens=NEW, eos_token_id=end)
    assert ours.tolist() == theirs.generate(**batch, max_new_tokens=NEW, eos_token_id=end).tolist()
    assert (ours[0, -NEW // 3 :] == 0).all()


def test_without_a_mask_padding_is_found(model, theirs, batch):
    ours = model.generate(batch.input_ids, max_new_tokens=NEW)
    assert ours.tolist() == theirs.generate(batch.input_ids, max_new_tokens=NEW).tolist()


def test_a_stop_string_ends_a_text_and_stays_in_it(model, theirs, tokenizer, batch):
    arguments = {"max_new_tokens": NEW, "stop_strings": [" coins"], "tokenizer": tokenizer}
    one = {"input_ids": batch.input_ids[:1], "attention_mask": batch.attention_mask[:1]}
    ours = model.generate(**one, **arguments)
    assert ours.tolist() == theirs.generate(**one, **arguments).tolist()


def test_a_criterion_ends_a_text(model, theirs, batch):
    criteria = [MaxLengthCriteria(batch.input_ids.shape[1] + 3)]
    ours = model.generate(**batch, max_new_tokens=NEW, stopping_criteria=criteria)
    assert ours.tolist() == theirs.generate(**batch, max_new_tokens=3).tolist()


def test_scores_logits_and_hidden_states_are_those_of_transformers(model, theirs, batch):
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    arguments = {
        "max_new_tokens": 5,
        "repetition_penalty": 1.3,
        "output_hidden_states": True,
        **wanted,
    }
    one = {name: tensor[:2] for name, tensor in batch.items()}
    ours, expected = model.generate(**one, **arguments), theirs.generate(**one, **arguments)
    assert ours["sequences"].tolist() == expected.sequences.tolist()
    for step in range(5):
        torch.testing.assert_close(ours.logits[step], expected.logits[step], atol=1e-3, rtol=1e-3)
        # The pad token is no part of a text: that it lies before one is no repetition.
        torch.testing.assert_close(
            ours.scores[step][:, 1:], expected.scores[step][:, 1:], atol=1e-3, rtol=1e-3
        )
        theirs_last = expected.hidden_states[step][-1][:, -1:]
        torch.testing.assert_close(ours.hidden_states[step][-1], theirs_last, atol=1e-3, rtol=1e-3)
    assert [generation.token_ids for generation in ours.generations] == [
        tuple(row.tolist()) for row in ours.sequences[:, -5:]
    ]


def test_tokens_below_min_p_are_not_sampled(model, batch):
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    sampled = {"do_sample": True, "temperature": 2.0, "top_k": 0, "min_p": 0.3, "seed": 7}
    ours = model.generate(**batch, **sampled, **wanted, max_new_tokens=4)
    reference = MinPLogitsWarper(0.3)
    for logits, scores in zip(ours.logits, ours.scores, strict=True):
        rows = logits.abs().sum(dim=-1) > 0  # others have ended
        expected = reference(None, logits[rows] / 2.0)
        torch.testing.assert_close(scores[rows], expected)
        assert expected.isinf().any()


def test_scores_of_sampled_tokens_are_warped(model, batch):
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    ours = model.generate(
        **batch, max_new_tokens=4, do_sample=True, temperature=0.5, top_k=7, seed=3, **wanted
    )
    for step in range(4):
        possible = ours.scores[step].isfinite()
        assert possible.sum(dim=1).tolist() == [7] * len(PROMPTS)
        assert possible.gather(1, ours.sequences[:, step - 4, None]).all()
        torch.testing.assert_close(ours.scores[step][possible], 2 * ours.logits[step][possible])


def test_texts_of_one_prompt_differ_and_come_again_with_the_seed(model, batch):
    one = {name: tensor[:1] for name, tensor in batch.items()}
    arguments = {"max_new_tokens": NEW, "do_sample": True, "num_return_sequences": 3}
    torch.manual_seed(8)
    first = model.generate(**one, **arguments)
    second = model.generate(**one, **arguments)
    torch.manual_seed(8)
    assert model.generate(**one, **arguments).tolist() == first.tolist() != second.tolist()
    assert len({tuple(row) for row in first.tolist()}) == 3


class Notes(BaseStreamer):
    def __init__(self):
        self.said = []

    def put(self, value):
        self.said.append(value.tolist())

    def end(self):
        self.said.append("end")


def test_a_streamer_is_given_the_prompt_every_token_and_the_end(model, theirs, batch):
    ours, expected = Notes(), Notes()
    model.generate(batch.input_ids[1:2], max_new_tokens=NEW, streamer=ours)
    theirs.generate(batch.input_ids[1:2], max_new_tokens=NEW, streamer=expected)
    assert ours.said == expected.said


def test_a_text_can_be_read_while_it_is_written_in_another_thread(model, tokenizer, batch):
    one = {name: tensor[:1] for name, tensor in batch.items()}
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=PATIENCE_S)
    writing = threading.Thread(
        target=model.generate, kwargs={**one, "max_new_tokens": NEW, "streamer": streamer}
    )
    writing.start()
    text = "".join(streamer)
    writing.join()
    assert text == tokenizer.decode(model.generate(**one, max_new_tokens=NEW)[0, -NEW:])


def test_a_streamer_hears_the_end_of_a_text_that_fails(model):
    notes = Notes()
    with pytest.raises(PromptTooLong):
        model.generate(torch.full((1, 1030), 5), max_new_tokens=NEW, streamer=notes)
    assert notes.said[1:] == ["end"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_whole_texts_are_those_of_transformers(side, model, theirs):
    padded = AutoTokenizer.from_pretrained(locate(TARGET), padding_side=side)
    batch = padded(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.inference_mode():
        expected = theirs(**batch, output_hidden_states=True)
    text = batch.attention_mask.bool()
    ours = model(**batch, output_hidden_states=True)
    torch.testing.assert_close(ours.logits[text], expected.logits[text], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        ours.hidden_states[-1][text], expected.hidden_states[-1][text], atol=1e-3, rtol=1e-3
    )
    assert not ours.logits[~text].any()
    last = model(**batch, logits_to_keep=2).logits
    torch.testing.assert_close(last, ours.logits[:, -2:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_beams": 3}, "num_beams"),
        ({"logits_processor": [print]}, "logits_processor"),
        ({"assistant_model": "another"}, "assistant_model"),
        ({"token_type_ids": 1}, "token_type_ids"),
        ({"input_ids": torch.tensor([[5]])}, "inputs"),
        ({"streamer": Notes(), "do_sample": True, "num_return_sequences": 2}, "streamer"),
    ],
)
def test_what_a_swarm_cannot_do_is_said_before_anything_is_sent(arguments, name, model):
    with pytest.raises(UnsupportedArgument) as caught:
        model.generate(torch.tensor([[5, 6]]), **arguments)
    assert caught.value.name == name


def test_forward_refuses_what_it_cannot_do(model):
    with pytest.raises(UnsupportedArgument, match=r"^labels"):
        model(torch.tensor([[5, 6]]), labels=torch.tensor([[5, 6]]))
    with pytest.raises(UnsupportedArgument, match=r"^logits_to_keep = -1"):
        model(torch.tensor([[5, 6]]), logits_to_keep=-1)
