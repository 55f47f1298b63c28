"""A look at a folder tells damaged files, and weights that are not plain, before anything heavy."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.model_files import add, shard
from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import look
from swarm.model.head import Head
from swarm.model.span import Span

pytestmark = pytest.mark.usefixtures("rehearsed_again")


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


# FP8 of DeepSeek and of ModelOpt, GPTQ, compressed-tensors, bitsandbytes, MLX.
@pytest.mark.parametrize(
    "extra",
    [
        "weight_scale_inv",
        "input_scale",
        "qzeros",
        "weight_packed",
        "weight.absmax",
        "scales",
        "biases",
        "weight.quant_state.bitsandbytes__nf4",
        "g_idx",
    ],
)
def test_tensors_beside_the_weights_are_refused(extra: str, model: Path) -> None:
    """They give the weights their meaning: without them, a peer would serve another model."""
    add(model, f"model.layers.0.mlp.up_proj.{extra}", torch.ones(1))
    checkpoint = Checkpoint.open(str(model))
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 2, 3)):
        with pytest.raises(UnsupportedModel, match=f"quantized.*{re.escape(extra)}"):
            load()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int32])
@pytest.mark.parametrize("early", [True, False])
def test_weights_that_are_no_plain_floats_are_refused(
    dtype: torch.dtype, early: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder before anything is read, of a hub model as soon as they are."""
    path = shard(model)
    content = load_file(path)
    name = next(each for each in content if "layers.0" in each and each.endswith(".weight"))
    save_file({**content, name: content[name].to(dtype)}, path)
    checkpoint = Checkpoint.open(str(model))
    if not early:
        monkeypatch.setattr(checkpoint, "stored", dict)
    with pytest.raises(UnsupportedModel, match=f"quantized.*{re.escape(name)} has the dtype"):
        Span.load(checkpoint, 0, 1)


def test_integers_that_are_no_weights_are_left_alone(model: Path) -> None:
    """Old checkpoints hold masks and positions."""
    add(model, "model.layers.0.self_attn.bias", torch.ones(2, dtype=torch.uint8))
    Span.load(Checkpoint.open(str(model)), 0, 1)


@pytest.mark.parametrize(
    "file", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"]
)
def test_quantization_told_in_a_file_of_its_own(file: str, model: Path) -> None:
    (model / file).write_text('{"quantization": {"quant_algo": "W2"}}')
    for read in (look, Checkpoint.open):
        with pytest.raises(UnsupportedModel, match=f"quantized.*(W2|{file})"):
            read(str(model))


def test_an_adapter_that_is_not_merged_is_told(model: Path) -> None:
    add(model, "model.layers.0.mlp.up_proj.lora_A.weight", torch.ones(1))
    with pytest.raises(UnsupportedModel, match=r"adapter.*lora_A") as caught:
        Head.load(Checkpoint.open(str(model)))
    assert "quantize" not in str(caught.value)


@pytest.mark.parametrize("early", [True, False])
def test_complex_weights_are_told(
    early: bool, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shard(model)
    content = load_file(path)
    name = next(each for each in content if "layers.0" in each and each.endswith(".weight"))
    save_file({**content, name: content[name].to(torch.complex64)}, path)
    checkpoint = Checkpoint.open(str(model))
    if not early:
        monkeypatch.setattr(checkpoint, "stored", dict)
    with pytest.raises(
        UnsupportedModel, match=f"{re.escape(name)} holds complex numbers"
    ) as caught:
        Span.load(checkpoint, 0, 1)
    assert "quantize" not in str(caught.value)


def test_a_file_that_is_no_model_is_told_apart_from_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model-q4.gguf").write_bytes(b"GGUF" + bytes(100))
    for name in (str(tmp_path), str(tmp_path / "model-q4.gguf")):
        for open_it in (look, Checkpoint.open):
            with pytest.raises(DamagedModel, match=r"model-q4\.gguf has the version 0"):
                open_it(name)
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="it is a file"):
        look(str(tmp_path / "weights"))


@pytest.mark.parametrize("content", ["{", "[]", '{"eos_token_id": "x"}'])
def test_a_damaged_generation_configuration_is_told_at_a_look(content: str, model: Path) -> None:
    (model / "generation_config.json").write_text(content)
    with pytest.raises(DamagedModel, match=r"generation_config\.json"):
        look(str(model))


@pytest.mark.parametrize(
    ("shift", "how"), [(4, "does not begin where another ends"), (-4, "overlaps another")]
)
def test_tensors_that_overlap_or_leave_a_hole_are_told_at_a_look(
    shift: int, how: str, model: Path
) -> None:
    path = shard(model)

    def change(header: dict[str, Any]) -> None:
        tensors = [each for name, each in header.items() if name != "__metadata__"]
        tensor = sorted(tensors, key=lambda each: each["data_offsets"])[1]
        start, stop = tensor["data_offsets"]
        tensor["data_offsets"] = [start + shift, stop + shift]

    rewrite_header(path, change)
    with pytest.raises(DamagedModel, match=f"{re.escape(path.name)}.*{how}"):
        look(str(model))
