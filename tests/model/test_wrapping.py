"""The text of a model with towers for images is that of the whole; the towers are not read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from helpers.local_chain import BOUND
from helpers.published import LINEAR, beside, fp8_blocks
from swarm.model.anatomy import study
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.loading import branching_of, load_draft
from swarm.model.head import Head
from swarm.model.miniature import miniatures
from swarm.model.span import Span
from swarm.model.work import Work

TEXT = torch.tensor([7, 9, 30, 11, 12, 13, 14, 21, 5, 40])
SECTIONS = {"rope_type": "default", "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}
SETTINGS: dict[str, dict[str, Any]] = {
    "glm4v": {"text_config": {"rope_parameters": {**SECTIONS, "rope_theta": 10000.0}}},
}
WRAPPED = (
    "gemma3",
    "glm4v",
    "kimi_k25",
    "llama4",
    "minimax_m3_vl",
    "mistral3",
    "qwen2_5_vl",
    "qwen3_5_moe",
    "qwen3_vl",
)
TOWERS = ("vis", "image", "tower", "projector", "patch_embed")  # in names of their tensors


def save(model_type: str, folder: Path) -> PreTrainedModel:
    """Save a small random model, as transformers does, and return it."""
    config = next(miniatures(AutoConfig.for_model(model_type, **SETTINGS.get(model_type, {}))))()
    torch.manual_seed(5)
    model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.2 if parameter.dim() < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    model.save_pretrained(folder)
    return model


def logits_of(model: PreTrainedModel, text: torch.Tensor = TEXT) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=text[None], use_cache=False).logits[0]


def same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return ((got - expected).abs().max() <= BOUND * expected.abs().max()).item()


@pytest.mark.parametrize("model_type", WRAPPED)
def test_the_text_of_a_wrapped_model_is_served(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits_of(save(model_type, tmp_path / "model"))
    read: list[str] = []
    tensor = Checkpoint.tensor

    def noting(self: Checkpoint, name: str) -> torch.Tensor:
        read.append(name)
        return tensor(self, name)

    monkeypatch.setattr(Checkpoint, "tensor", noting)
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    layers = checkpoint.num_layers
    spans = [Span.load(checkpoint, *ends) for ends in ((0, layers // 2), (layers // 2, layers))]
    head = Head.load(checkpoint)
    caches = [span.new_cache() for span in spans]
    got = []
    for values in (TEXT[:4], TEXT[4:]):
        for span, cache in zip(spans, caches, strict=True):
            values = span.forward([Work.behind(cache, values)])[0]
        got.append(head.logits(values))
    assert same(torch.cat(got), expected)
    assert not same(logits_of(save(model_type, tmp_path / "again"), TEXT.flip(0)), expected)

    names = checkpoint.tensor_names()
    of_towers = {name for name in names if any(tower in name for tower in TOWERS)}
    assert of_towers
    assert not of_towers.intersection(read)
    anatomy = study(checkpoint)
    planned = sum(anatomy.layer_numel) + anatomy.embedding_numel
    assert planned <= sum(tensor(checkpoint, name).numel() for name in set(read))


@pytest.mark.parametrize("place", ["outer", "text_config"])
def test_published_bits_are_told_by_the_whole_or_by_its_text(place: str, tmp_path: Path) -> None:
    """Of a wrapped model in FP8, whose towers are packed, too, and are not read."""
    save("mistral3", tmp_path / "plain")
    packed = tmp_path / "packed"
    packed.mkdir()
    pack = fp8_blocks(16, 16)
    stored, meant = {}, load_file(tmp_path / "plain" / "model.safetensors")
    for name, tensor in meant.items():
        stored[name] = tensor
        if LINEAR.fullmatch(name):
            parts, meant[name] = pack(tensor)
            del stored[name]
            stored |= {beside(name, part): each for part, each in parts.items()}
    save_file(meant, tmp_path / "plain" / "model.safetensors", {"format": "pt"})
    save_file(stored, packed / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    where = config if place == "outer" else config["text_config"]
    where["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    (packed / "config.json").write_text(json.dumps(config))

    checkpoint = Checkpoint.open(str(packed))
    span = Span.load(checkpoint, 0, checkpoint.num_layers)
    hidden = span.forward([Work.behind(span.new_cache(), TEXT)])[0]
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "plain").eval()
    assert same(Head.load(checkpoint).logits(hidden), logits_of(whole))
    assert span.nbytes < 0.5 * sum(each.nbytes for each in whole.parameters())


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_vl"])
def test_a_wrapped_model_drafts_without_its_towers(model_type: str, tmp_path: Path) -> None:
    whole = save(model_type, tmp_path / "model")
    draft = load_draft(str(tmp_path / "model"), ComputeOptions("cpu", "cpu", "float32"))
    assert same(logits_of(draft.model), logits_of(whole))
    assert branching_of(draft) is not None
    assert draft.weights < sum(parameter.numel() for parameter in whole.parameters())
    assert draft.weights >= sum(parameter.numel() for parameter in draft.model.parameters())
