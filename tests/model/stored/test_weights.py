"""Tensors that do not make the weight that they claim to make are told, whatever is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.models import Architecture
from helpers.published import GPT_OSS, PUBLISHED, beside, publish
from swarm.errors import DamagedModel, SwarmError, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import INT8
from swarm.model.span import Span
from swarm.model.stored.packed import PackedTensor

SIZES = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32}
DENSE = Architecture("llama", SIZES)
EXPERTS = Architecture("gpt_oss", {**SIZES, "num_local_experts": 2, "num_experts_per_tok": 1})
UP = "model.layers.0.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a checkpoint in a format, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            architecture = EXPERTS if name == "gpt-oss" else DENSE
            published = GPT_OSS if name == "gpt-oss" else PUBLISHED[name]
            made[name], _ = publish(architecture, published, tmp_path_factory.mktemp("sound"))
        return made[name]

    return make


def changed(
    sound: Path, folder: Path, change: Callable[[Tensors], object], **settings: Any
) -> Path:
    tensors = load_file(sound / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for file in sound.glob("*.json"):
        content = json.loads(file.read_text())
        if file.name == "config.json" and settings:
            content["quantization_config"] = {**content["quantization_config"], **settings}
        (folder / file.name).write_text(json.dumps(content))
    return folder


def error_of(folder: Path) -> str:
    with pytest.raises(SwarmError) as caught:
        Span.load(Checkpoint.open(str(folder)), 0, 1)
    assert isinstance(caught.value, (DamagedModel, UnsupportedModel))
    return str(caught.value)


STATE = f"{UP}.quant_state.bitsandbytes__nf4"


def state(**settings: Any) -> torch.Tensor:
    """Return the JSON beside a weight of bitsandbytes, with other settings than its own."""
    text = json.dumps({"quant_type": "nf4", "blocksize": 32, "shape": [64, 32], **settings})
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def put(name: str, tensor: torch.Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.__setitem__(name, tensor)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("fp8 blocks", put(f"{UP}_scale_inv", torch.ones(2, 2)), "scales of the shape [2, 2]"),
        ("fp8 blocks", put(f"{UP}_scale_inv", torch.ones(1)), "scales of the shape [1]"),
        ("fp8 blocks", lambda each: each.pop(f"{UP}_scale_inv"), "has the dtype F8_E4M3"),
        ("fp8 blocks", lambda each: each.pop(UP), "is no part of the model itself"),
        ("fp8 blocks", put(f"{UP}_scale_inv", torch.full((4, 2), torch.nan)), "is not finite"),
        ("fp8 blocks", put(f"{UP}_scale_inv", torch.ones(4, 2).int()), "the dtype I32"),
        ("fp8 blocks", put(UP, torch.ones(64, 32)), "has scales beside it, and the dtype F32"),
        (
            "fp8 blocks",
            lambda each: each[UP].view(torch.uint8).__setitem__((3, 4), 0x7F),
            "whose weight is not finite",
        ),
        (
            "fp8 blocks, ue8m0",
            lambda each: each[f"{UP}_scale_inv"].view(torch.uint8).fill_(255),
            "whose weight_scale_inv is not finite",
        ),
        (
            "fbgemm",  # a scale a row for a square matrix, as if it were one a column
            put("model.layers.0.self_attn.o_proj.weight_scale", torch.ones(1, 32)),
            "scales of the shape [1, 32]",
        ),
        ("int4", put(f"{UP}_scale", torch.ones(64, 3)), "scales of the shape [64, 3]"),
        ("int4", put(f"{UP}_shape", torch.tensor([64, 31])), "whose weight_shape is [64, 31]"),
        ("int4", lambda each: each.pop(f"{UP}_scale"), "is no part of the model itself"),
        ("int4", put(UP, torch.ones(64, 32)), "which is also stored packed"),
        (
            "int4, sorted columns",
            put(f"{UP}_g_idx", torch.full((32,), 2, dtype=torch.int32)),
            "names other groups than the 2",
        ),
        ("int4, zero points", lambda each: each.pop(f"{UP}_zero_point"), f"lacks {UP}_zero_point"),
        ("int4, sorted columns", lambda each: each.pop(f"{UP}_g_idx"), f"lacks {UP}_g_idx"),
        (
            "gptq, sorted inputs",
            lambda each: each.pop(beside(UP, "g_idx")),
            "up_proj.g_idx, without which model.layers.0.mlp.up_proj.weight would mean other",
        ),
        ("gptq", put(beside(UP, "qzeros"), torch.ones(3, 8).int()), "scales of the shape [2, 64]"),
        ("gptq", put(beside(UP, "scales"), torch.full((2, 64), torch.nan).half()), "not finite"),
        ("gptq", put(beside(UP, "g_idx"), torch.ones(31).int()), "a g_idx of the shape [31]"),
        (
            "gptq, sorted inputs",
            put(beside(UP, "g_idx"), torch.full((32,), 2, dtype=torch.int32)),
            "names other groups than the 2",
        ),
        ("gptq", lambda each: each.pop(beside(UP, "scales")), "is no part of the model itself"),
        ("awq", put(beside(UP, "qweight"), torch.ones(32, 7).int()), "the shape [32, 7], to which"),
        ("awq", put(beside(UP, "qweight"), torch.ones(32, 8)), "is packed as F32"),
        ("bitsandbytes nf4", put(STATE, torch.zeros(3).byte()), "JSON beside"),
        ("bitsandbytes nf4", put(STATE, state(shape=[64, 31])), "to which scales of the shape"),
        ("bitsandbytes nf4", put(STATE, state(blocksize=1 << 20)), "its sizes are impossible"),
        ("bitsandbytes nf4", put(STATE, state(shape="x")), "JSON beside"),
        ("bitsandbytes nf4", put(f"{UP}.quant_map", torch.ones(16)), "other numbers than those of"),
        ("bitsandbytes nf4", put(f"{UP}.quant_map", torch.ones(4)), "other numbers than those of"),
        ("bitsandbytes nf4", put(f"{UP}.absmax", torch.full((64,), torch.inf)), "not finite"),
        (
            "bitsandbytes nf4, nested",
            lambda each: each.pop(f"{UP}.nested_absmax"),
            "to which scales of the shape",
        ),
        ("bitsandbytes int8", put(beside(UP, "SCB"), torch.ones(63)), "scales of the shape [63]"),
        (
            "bitsandbytes int8",
            put(beside(UP, "weight_format"), torch.tensor(2).byte()),
            "an order that is made for one kind of GPU",
        ),
        ("modelopt nvfp4", put(f"{UP}_scale_2", torch.tensor(torch.inf)), "is not finite"),
        ("modelopt nvfp4", lambda each: each.pop(f"{UP}_scale_2"), "scales of the dtype F8_E4M3"),
        (
            "modelopt nvfp4",
            put(UP.replace("weight", "pre_quant_scale"), torch.ones(32)),
            "pre_quant_scale is no part of the model itself",
        ),
        (
            "gpt-oss",
            put("model.layers.0.mlp.experts.down_proj_scales", torch.ones(2, 32, 3).byte()),
            "scales of the shape [2, 32, 3]",
        ),
    ],
)
def test_tensors_that_make_no_weight_are_told(
    name: str,
    change: Callable[[Tensors], object],
    words: str,
    sound: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    assert words in error_of(changed(sound(name), tmp_path, change))


def test_a_weight_of_another_shape_than_the_model_has_is_told(
    sound: Callable[[str], Path], tmp_path: Path
) -> None:
    def narrow(tensors: Tensors) -> None:
        tensors[UP] = tensors[UP][:32].clone()
        tensors[f"{UP}_scale_inv"] = tensors[f"{UP}_scale_inv"][:2].clone()

    error = error_of(changed(sound("fp8 blocks"), tmp_path, narrow))
    assert "has the shape [32, 32], and by config.json it is [64, 32]" in error


def test_the_list_of_what_is_not_packed_is_compared_with_the_tensors(
    sound: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = ["lm_head", UP.removesuffix(".weight")]
    folder = changed(sound("fp8 blocks"), tmp_path, lambda each: None, modules_to_not_convert=plain)
    assert "up_proj is not quantized, and its tensors are" in error_of(folder)


def test_settings_without_any_packed_weight_are_told(
    sound: Callable[[str], Path], tmp_path: Path
) -> None:
    def widen(tensors: Tensors) -> None:
        for name in list(tensors):
            if name.endswith("_scale_inv"):
                del tensors[name]
            elif tensors[name].dtype == torch.float8_e4m3fn:
                tensors[name] = tensors[name].float()

    error = error_of(changed(sound("fp8 blocks"), tmp_path, widen))
    assert "says that its weights are quantized (fp8), and none is" in error


def test_scales_of_activations_and_caches_change_nothing(
    sound: Callable[[str], Path], tmp_path: Path
) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.mlp.up_proj.input_scale"] = torch.ones(())
        tensors["model.layers.0.self_attn.k_scale"] = torch.ones(())

    folder = changed(sound("modelopt fp8"), tmp_path, add)
    assert Span.load(Checkpoint.open(str(folder)), 0, 1).packs


def test_packed_weights_are_not_quantized_again(sound: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedModel, match="are served in these bits alone"):
        Span.load(Checkpoint.open(str(sound("fp8 blocks")), INT8), 0, 1)


@pytest.mark.parametrize("name", ["fp8 blocks", "int4", "gpt-oss"])
def test_a_model_whose_headers_are_not_known_yet_is_read_all_the_same(
    name: str, sound: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are hub models in several files."""
    folder = str(sound(name))
    expected = Span.load(Checkpoint.open(folder), 0, 1).nbytes
    checkpoint = Checkpoint.open(folder)
    monkeypatch.setattr(checkpoint._source, "stored", dict)
    assert Span.load(checkpoint, 0, 1).nbytes == expected


def test_a_weight_has_one_name_and_its_wide_shape(sound: Callable[[str], Path]) -> None:
    checkpoint = Checkpoint.open(str(sound("int4")))
    names = [name for name in checkpoint.tensor_names() if ".mlp.up_proj." in name]
    assert names == [UP.replace("0", str(layer), 1) for layer in range(4)]
    assert checkpoint.file_of(UP) == "model.safetensors"
    assert checkpoint.stored()[UP].shape == (64, 32)
    tensor = checkpoint.tensor(UP)
    assert isinstance(tensor, PackedTensor)
    assert tensor.shape == (64, 32)
    with pytest.raises(KeyError):
        checkpoint.tensor(f"{UP}_packed")
