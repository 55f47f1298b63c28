"""What a configuration asks for is checked before the library makes lists and modules of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration

from helpers.model_files import edit, shard
from helpers.models import ARCHITECTURES
from swarm.errors import ExitCode, SwarmError, UnsupportedModel
from swarm.model import limits
from swarm.model.anatomy import study
from swarm.model.checkpoint import Checkpoint
from swarm.model.limits import few_modules
from swarm.model.rehearsal import rehearsed
from swarm.model.span import Span

CODE = {"auto_map": {"AutoModelForCausalLM": "modeling_wonder.WonderForCausalLM"}}


def refusal(model: Path) -> str:
    with pytest.raises(SwarmError) as caught:
        study(Checkpoint.open(str(model)))
    assert caught.value.exit_code == ExitCode.LOCAL
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "wonder"}, "has no model of the type 'wonder'. Choose"),
        ({"model_type": "wonder", **CODE}, "'wonder', and code that comes with a model (its auto_"),
        ({"model_type": ["llama"]}, "model_type is ['llama'], which is no name"),
        ({"hidden_act": "wonder"}, "its hidden_act 'wonder' is not known"),
        (
            {"rope_parameters": {"rope_type": "wonder", "rope_theta": 1e4}},
            "its rope_type 'wonder' is not known",
        ),
    ],
)
def test_names_that_the_library_does_not_know(
    settings: dict[str, Any], words: str, model: Path
) -> None:
    edit(model / "config.json", **settings)
    assert words in refusal(model)


def test_code_of_a_model_that_the_library_knows_is_not_run(model: Path) -> None:
    edit(model / "config.json", **CODE)
    (model / "modeling_wonder.py").write_text("raise SystemExit('it was run')")
    assert study(Checkpoint.open(str(model))).layers == "model.layers"


@pytest.mark.parametrize("nested", [False, True])
def test_too_many_layers_are_refused_before_lists_are_made_of_them(
    nested: bool, tmp_path: Path
) -> None:
    """A configuration makes a list of the types of its layers, where the file has none."""
    ARCHITECTURES["qwen3"].save(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["num_hidden_layers"] = 1 << 40
    del content["layer_types"]
    if nested:
        content = {"model_type": "qwen3_5", "text_config": content}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert "num_hidden_layers is 1099511627776, which must be" in refusal(tmp_path)


def test_too_many_experts_are_refused(tmp_path: Path) -> None:
    ARCHITECTURES["qwen3_moe"].save(tmp_path)
    edit(tmp_path / "config.json", num_local_experts=1 << 30)
    assert "experts is 1073741824, which must be from 1 to 65,536" in refusal(tmp_path)
    edit(tmp_path / "config.json", num_local_experts=4, num_experts_per_tok=5)
    assert "num_experts_per_tok is 5, which must be from 1 to 4" in refusal(tmp_path)


def test_no_more_modules_are_made_than_a_model_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MODULES", 10)
    with pytest.raises(ValueError, match="more than 10 modules"), few_modules():
        nn.ModuleList([nn.Sequential(nn.Identity()) for _ in range(1 << 40)])
    assert len(nn.ModuleList([nn.Identity() for _ in range(20)])) == 20


def test_weights_that_are_no_numbers_are_told(model: Path) -> None:
    path = shard(model)
    tensors = load_file(path)
    save_file({name: torch.full_like(each, torch.nan) for name, each in tensors.items()}, path)
    with pytest.raises(SwarmError, match="layers 0:1 give numbers that are not finite: their wei"):
        Span.load(Checkpoint.open(str(model)), 0, 1)


def test_the_decoder_of_an_encoder_is_not_served_without_it(tmp_path: Path) -> None:
    """The library has a class of the decoder alone, which would leave out the encoder."""
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    config = BartConfig(vocab_size=97, d_model=32, max_position_embeddings=64, **heads, **layers)
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="is an encoder with a decoder, and only decoders"):
        rehearsed(Checkpoint.open(str(tmp_path)))
