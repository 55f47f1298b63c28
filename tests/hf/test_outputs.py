"""Texts of several lengths become tensors of one shape."""

import torch
from transformers import GenerationConfig

from swarm.hf.arguments import read_call
from swarm.hf.outputs import GeneratedRow, assemble, placed
from swarm.outputs import Piece

INPUTS = torch.tensor([[0, 5], [6, 7]])


def rows(*texts, vocabulary=4):
    def piece(token):
        return Piece(
            token,
            "",
            "target",
            logits=torch.full((vocabulary,), float(token)),
            hidden_state=torch.ones(2),
        )

    return [GeneratedRow([piece(token) for token in text]) for text in texts]


def call(**more):
    defaults = GenerationConfig(pad_token_id=9, eos_token_id=2)
    return read_call(
        INPUTS, None, None, defaults, None, (), {"return_dict_in_generate": True, **more}
    )


def test_rows_that_end_sooner_are_filled_up():
    output = assemble(call(return_dict_in_generate=False), rows([1, 2], [3, 4, 5]))
    assert output.tolist() == [[0, 5, 1, 2, 9], [6, 7, 3, 4, 5]]


def test_every_step_has_its_tensors_of_all_rows_and_zeros_behind_an_end():
    output = assemble(call(output_logits=True, output_hidden_states=True), rows([1, 2], [3, 4, 5]))
    assert [step[:, 0].tolist() for step in output.logits] == [[1, 3], [2, 4], [0, 5]]
    assert [step[-1][:, 0, 0].tolist() for step in output.hidden_states] == [[1, 1], [1, 1], [0, 1]]
    assert (output.scores, output["sequences"].shape) == (None, (2, 5))


def test_what_was_read_lies_where_the_text_is():
    read = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[4.0], [5.0]])]
    left = torch.tensor([[1, 1, 1], [0, 1, 1]]).bool()
    assert placed(read, left)[..., 0].tolist() == [[1, 2, 3], [0, 4, 5]]
    assert placed(read, left.flip(1))[..., 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert placed(read, left[:, -2:])[..., 0].tolist() == [[2, 3], [4, 5]]
