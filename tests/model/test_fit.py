"""Weights that are not those of the model that the configuration describes are refused."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.model_files import add, edit
from helpers.models import ARCHITECTURES
from swarm.errors import UnsupportedModel
from swarm.model import rehearsal
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import look
from swarm.model.head import Head
from swarm.model.span import Span

pytestmark = pytest.mark.usefixtures("rehearsed_again")
LEFT_OUT = r"{}, which .* leaves out of the model"


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        # no weight lies beside these: GPT-OSS, Mamba, nanochat, Gemma 2
        "model.layers.0.mlp.experts.gate_up_proj_bias",
        "model.layers.0.self_attn.sinks",
        "model.layers.0.mixer.A_log",
        "model.layers.0.mixer.dt_bias",
        "model.layers.0.self_attn.bias",
        "model.layers.0.post_feedforward_layernorm.weight",
        "layers.0.self_attn.q_norm.weight",  # as models without a head are saved
        "model.resid_lambdas",
        "model.embed_norm.weight",
        "model.norm.bias",
        "model.embed_tokens.extra",
        "lm_head.bias",
    ],
)
def test_parameters_that_the_configuration_leaves_out_are_refused(name: str, model: Path) -> None:
    """Without them the model would say something else, and the loader would not say a word."""
    add(model, name, torch.ones(32))
    with pytest.raises(UnsupportedModel, match=LEFT_OUT.format(re.escape(name))):
        rehearsal.rehearsed(Checkpoint.open(str(model)))


@pytest.mark.parametrize("name", ["self_attn.q_proj.bias", "self_attn.sinks"])
def test_what_a_hub_model_in_several_files_holds_is_told_when_it_is_loaded(
    name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to a client and to a peer that serves other layers."""
    add(model, f"model.layers.0.{name}", torch.ones(32))
    checkpoint = Checkpoint.open(str(model))
    monkeypatch.setattr(checkpoint, "stored", dict)
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 2, 3)):
        with pytest.raises(UnsupportedModel, match=LEFT_OUT.format(re.escape(name))):
            load()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,)),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", (8, 4)),
        ("model.layers.0.self_attn.masked_bias", ()),
        ("model.layers.0.self_attn.bias", (1, 1, 8, 8)),
        ("model.layers.0.attn.attention.bias", (1, 1, 8, 8)),
        ("model.layers.0.mlp._extra_state", (0,)),
        ("model.layers.4.mlp.up_proj.bias", (4,)),
        ("model.layers.4.enorm.weight", (4,)),
        ("model.mtp.layers.0.mlp.up_proj.bias", (4,)),
        ("model.mtp_emb_norm.0.weight", (4,)),
        ("mtp.fc.weight", (4,)),
        ("model.visual.blocks.0.norm1.weight", (4,)),
        ("vision_tower.encoder.layers.0.layer_norm1.weight", (4,)),
        ("model.rotary_emb.inv_freq", (4,)),
        ("model.position_ids", (4,)),
        ("score.weight", (2, 32)),
    ],
)
def test_tensors_that_publishers_leave_in_their_files_are_harmless(
    name: str, shape: tuple[int, ...], model: Path
) -> None:
    """Tables and masks of old, layers that predict further tokens, other senses, other heads."""
    add(model, name, torch.ones(shape))
    rehearsal.rehearsed(Checkpoint.open(str(model)))


@pytest.mark.parametrize("early", [True, False])
def test_weights_of_other_shapes_than_the_configuration_says(
    early: bool, model: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names tensor, file and both shapes, and the loader's own report is not shown.

    Of a folder it is told before anything is read, and to clients, too, which read no layer.
    """
    edit(model / "config.json", intermediate_size=64)
    checkpoint = Checkpoint.open(str(model))
    monkeypatch.setattr(checkpoint, *(("tensor", None) if early else ("stored", dict)))
    use = rehearsal.rehearsed if early else partial(Span.load, first=0, last=1)
    with pytest.raises(UnsupportedModel, match="do not fit its configuration") as caught:
        use(checkpoint)
    said = str(caught.value)
    assert re.search(r"model\.layers\.0\.mlp\.\w+\.weight in model-0\d+-of-\d+\.safetensors", said)
    assert "[32, 48]" in said
    assert "[32, 64]" in said
    assert logged == []


def test_layers_that_the_files_do_not_hold_are_told_before_anything_is_read(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(model / "config.json", num_hidden_layers=5)
    checkpoint = Checkpoint.open(str(model))
    monkeypatch.setattr(checkpoint, "tensor", None)
    with pytest.raises(UnsupportedModel, match=r"lacks the weights of model\.layers\.4\."):
        rehearsal.rehearsed(checkpoint)


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "gpt_neox"])
def test_a_layer_that_the_configuration_does_not_count_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHITECTURES[name].save(tmp_path)
    edit(tmp_path / "config.json", num_hidden_layers=3, layer_types=None)
    checkpoint = Checkpoint.open(str(tmp_path))
    refused = pytest.raises(UnsupportedModel, match=LEFT_OUT.format(r"\w+\.layers\.3"))
    with refused:
        rehearsal.rehearsed(checkpoint)
    monkeypatch.setattr(checkpoint, "stored", dict)  # as of a hub model in several files
    with refused:
        Span.load(checkpoint, 0, 1)


def test_a_layer_that_predicts_further_tokens_is_no_layer_of_the_model(tmp_path: Path) -> None:
    """As in DeepSeek-V3 and GLM-4.5: it has all that other layers have, and parts of its own."""
    ARCHITECTURES["llama"].save(tmp_path)
    edit(tmp_path / "config.json", num_hidden_layers=3)
    for part in ("eh_proj", "enorm", "hnorm", "shared_head.norm"):
        add(tmp_path, f"model.layers.3.{part}.weight", torch.ones(32))
    rehearsal.rehearsed(Checkpoint.open(str(tmp_path)))


def test_tensors_that_are_merged_are_named_by_one_of_them(tmp_path: Path) -> None:
    """Experts lie one by one in the files, and together in the model."""
    ARCHITECTURES["qwen3_moe"].save(tmp_path)
    edit(tmp_path / "config.json", moe_intermediate_size=8)
    with pytest.raises(UnsupportedModel, match=r"experts\.0\.\w+\.weight in model-0"):
        rehearsal.rehearsed(Checkpoint.open(str(tmp_path)))


def test_a_language_model_inside_another_one_is_told(model: Path, tmp_path: Path) -> None:
    """A LLaVA with this language model: its weights have the same names behind a prefix."""
    config = json.loads((model / "config.json").read_text())
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    wrapped = {
        "model_type": "llava",
        "text_config": config,
        "vision_config": vision,
        "image_token_id": 3,
    }
    (model / "config.json").write_text(json.dumps(wrapped))
    for file in model.glob("*.safetensors"):
        save_file({f"language_model.{name}": each for name, each in load_file(file).items()}, file)
    index = model / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={f"language_model.{name}": file for name, file in names.items()})
    checkpoint = Checkpoint.open(str(model))
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 0, 1)):
        with pytest.raises(UnsupportedModel, match="a part of a llava model"):
            load()
    edit(model / "config.json", quantization_config={"quant_method": "vptq"})
    with pytest.raises(UnsupportedModel, match="quantized in a way that is not read: 'vptq'"):
        look(str(model))
