"""Layers that read the same input are found, whatever a model calls them."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from helpers.models import ARCHITECTURES
from swarm.model.kernels.same_input import same_input


def groups_of(model: PreTrainedModel) -> list[list[str]]:
    token = torch.zeros(1, 1, dtype=torch.long)
    return same_input(model, lambda: model(input_ids=token, use_cache=False))


def in_layer_0(groups: list[list[str]]) -> list[list[str]]:
    """Return the groups of the first layer by the last parts of their names."""
    first = [[name for name in group if ".layers.0." in name] for group in groups]
    return [[name.rsplit(".", 1)[1] for name in group] for group in first if group]


@pytest.mark.parametrize("name", ["llama_tied", "qwen3", "gemma2"])
def test_queries_keys_and_values_go_together_and_so_do_gate_and_up(
    name: str, tmp_path: Path
) -> None:
    groups = groups_of(ARCHITECTURES[name].save(tmp_path))
    assert in_layer_0(groups) == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]
    assert ["lm_head"] in groups


def test_every_layer_is_in_one_group_also_those_that_do_not_run(tmp_path: Path) -> None:
    model = ARCHITECTURES["gpt_oss"].save(tmp_path)
    model.idle = nn.Linear(4, 4)
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    groups = groups_of(model)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert ["idle"] in groups
