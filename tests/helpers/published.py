"""Checkpoints in the bits of publishers, made by hand from the formats' specifications.

Each format packs a matrix into the tensors of a checkpoint, and says which numbers it means. The
code here is simple and slow, and shares nothing with what reads the formats.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.models import Architecture

FLOAT4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
LARGEST_E4M3 = 448.0
LINEAR = re.compile(r".*layers\.\d+\..*(_proj|_kqv|w[123]|fc[12]|linear)\.weight")

Tensors = dict[str, torch.Tensor]
Pack = Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
"""Given a matrix [rows, columns], returns its parts by their names, and its meaning."""


@dataclass(frozen=True)
class Published:
    """A format.

    Attributes:
        settings: config.json's ``quantization_config``; None without one.
        pack: packs one matrix.
        files: further files beside it, as JSON.
        linears: whether linear layers are packed, too, or experts alone.
    """

    settings: dict[str, Any] | None
    pack: Pack
    files: dict[str, Any] = field(default_factory=dict)
    linears: bool = True


def publish(
    architecture: Architecture, published: Published, folder: Path
) -> tuple[Path, PreTrainedModel]:
    """Save a model in a format; return its folder, and the model with the meant weights.

    Beside it lies a plain checkpoint of these.
    """
    plain, packed = folder / "plain", folder / "packed"
    architecture.save(plain)
    packed.mkdir()
    meant: Tensors = {}
    stored: Tensors = {}
    for file in plain.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            meant[name] = tensor
            if published.linears and LINEAR.fullmatch(name):
                parts, meant[name] = published.pack(tensor)
                stored.update({beside(name, part): each for part, each in parts.items()})
            elif name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                each = [published.pack(one.T.contiguous()) for one in tensor]  # rows are outputs
                meant[name] = torch.stack([one.T for _, one in each]).contiguous()
                for part in each[0][0]:
                    stored[beside(name, part)] = torch.stack([parts[part] for parts, _ in each])
            else:
                stored[name] = tensor
        file.unlink()
    (plain / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(meant, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(stored, packed / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    if published.settings is not None:
        config["quantization_config"] = published.settings
    (packed / "config.json").write_text(json.dumps(config))
    for name, content in published.files.items():
        (packed / name).write_text(json.dumps(content))
    model = AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, attn_implementation="eager"
    )
    return packed, model.eval()


def beside(weight: str, part: str) -> str:
    return weight + part.removeprefix("weight")


def fp8_blocks(
    rows: int, columns: int, scale: str = "weight_scale_inv", exponents: str = ""
) -> Pack:
    """FP8 with a scale for each block; 0 rows or columns for all of them.

    Args:
        exponents: "" for scales in float32, else powers of two as "F32", "E8M0" or "U8".
    """

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        height, width = rows or weight.shape[0], columns or weight.shape[1]
        numbers = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
        meant = torch.empty_like(weight)
        shape = (-(-weight.shape[0] // height), -(-weight.shape[1] // width))
        scales = torch.empty(shape)
        for i in range(shape[0]):
            for j in range(shape[1]):
                own = (
                    slice(i * height, (i + 1) * height),
                    slice(j * width, (j + 1) * width),
                )
                largest = weight[own].abs().max() / LARGEST_E4M3
                scales[i, j] = 2.0 ** largest.log2().ceil() if exponents else largest
                numbers[own] = (weight[own] / scales[i, j]).to(torch.float8_e4m3fn)
                meant[own] = numbers[own].float() * scales[i, j]
        stored = scales
        if exponents in ("E8M0", "U8"):
            stored = (scales.log2() + 127).to(torch.uint8)
        if exponents == "E8M0":
            stored = stored.view(torch.float8_e8m0fnu)
        if not rows and not columns:
            stored = stored.reshape(())
        return {"weight": numbers, scale: stored}, meant

    return pack


def int8_rows(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scales = weight.abs().amax(1, keepdim=True) / 127
    numbers = (weight / scales).round().to(torch.int8)
    return {"weight": numbers, "weight_scale": scales}, numbers * scales


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes [rows, n] into int32 [rows, n * bits / 32], the first in the lowest bits."""
    each = 32 // bits
    words = torch.zeros(codes.shape[0], codes.shape[1] // each, dtype=torch.int64)
    for place in range(each):
        words += codes[:, place::each].long() << (bits * place)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def integers(
    bits: int, group: int, *, zero_points: bool = False, sorted_columns: bool = False
) -> Pack:
    """compressed-tensors' ``pack-quantized``; a group of -1 is a row."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = weight.shape
        size = columns if group == -1 else group
        own = torch.arange(columns) // size
        if sorted_columns:
            own = own[torch.randperm(columns, generator=torch.Generator().manual_seed(columns))]
        scales = torch.empty(rows, columns // size)
        zeros = torch.full((rows, columns // size), 2 ** (bits - 1))
        for each in range(columns // size):
            values = weight[:, own == each]
            if zero_points:
                least, most = values.amin(1), values.amax(1)
                scales[:, each] = (most - least) / (2**bits - 1)
                zeros[:, each] = (-least / scales[:, each]).round().clamp(0, 2**bits - 1)
            else:
                scales[:, each] = values.abs().amax(1) / (2 ** (bits - 1) - 1)
        codes = (weight / scales[:, own]).round() + zeros[:, own]
        codes = codes.clamp(0, 2**bits - 1).long()
        parts = {
            "weight_packed": pack_words(codes, bits),
            "weight_scale": scales,
            "weight_shape": torch.tensor([rows, columns]),
        }
        if zero_points:
            parts["weight_zero_point"] = pack_words(zeros.T.contiguous(), bits).T.contiguous()
        if sorted_columns:
            parts["weight_g_idx"] = own.to(torch.int32)
        return parts, (codes - zeros[:, own]).float() * scales[:, own]

    return pack


def _nearest_float4(values: torch.Tensor) -> torch.Tensor:
    """Return the codes of the nearest numbers: a sign in the highest of four bits."""
    distances = (values.abs().unsqueeze(-1) - torch.tensor(FLOAT4)).abs()
    return distances.argmin(-1) + 8 * (values < 0).long()


def _float4_pairs(codes: torch.Tensor) -> torch.Tensor:
    return (codes[:, 0::2] + (codes[:, 1::2] << 4)).to(torch.uint8)


def _numbers_of(codes: torch.Tensor) -> torch.Tensor:
    numbers = torch.tensor(FLOAT4)[codes % 8]
    return torch.where(codes >= 8, -numbers, numbers)


def mxfp4(numbers: str, scale: str, *, blocks: bool = False, e8m0: bool = False) -> Pack:
    """MXFP4: 32 numbers share an exponent. gpt-oss has the groups as one more dimension."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = weight.shape
        groups = weight.reshape(rows, columns // 32, 32)
        exponents = (groups.abs().amax(-1) / 6).log2().ceil()
        codes = _nearest_float4(groups / 2.0 ** exponents.unsqueeze(-1))
        meant = _numbers_of(codes) * 2.0 ** exponents.unsqueeze(-1)
        pairs = _float4_pairs(codes.reshape(rows, columns))
        stored = (exponents + 127).to(torch.uint8)
        parts = {
            numbers: pairs.reshape(rows, columns // 32, 16) if blocks else pairs,
            scale: stored.view(torch.float8_e8m0fnu) if e8m0 else stored,
        }
        return parts, meant.reshape(rows, columns)

    return pack


def nvfp4(numbers: str, whole: str) -> Pack:
    """NVFP4: 16 numbers share a scale in E4M3, and the matrix one in float32."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = weight.shape
        groups = weight.reshape(rows, columns // 16, 16)
        factor = weight.abs().max() / 6 / LARGEST_E4M3
        scales = (groups.abs().amax(-1) / 6 / factor).to(torch.float8_e4m3fn)
        wide = (scales.float() * factor).unsqueeze(-1)
        codes = _nearest_float4(groups / wide)
        divides = whole == "weight_global_scale"
        parts = {
            numbers: _float4_pairs(codes.reshape(rows, columns)),
            "weight_scale": scales,
            whole: (1 / factor).reshape(1) if divides else factor.reshape(()),
        }
        return parts, (_numbers_of(codes) * wide).reshape(rows, columns)

    return pack


def compressed(format_: str, **weights: Any) -> dict[str, Any]:
    """Return the settings of compressed-tensors for one group of modules."""
    return {
        "quant_method": "compressed-tensors",
        "format": format_,
        "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*mlp.gate$"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}
        },
    }


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
BLOCKS = {**FP8, "weight_block_size": [16, 16]}


def modelopt(algorithm: str) -> dict[str, Any]:
    """Return the file of ModelOpt beside config.json."""
    quantization = {"quant_algo": algorithm, "exclude_modules": ["lm_head"]}
    return {"hf_quant_config.json": {"quantization": quantization}}


PUBLISHED: dict[str, Published] = {
    "fp8 blocks": Published(BLOCKS, fp8_blocks(16, 16)),
    "fp8 blocks, ue8m0": Published(
        {**BLOCKS, "scale_fmt": "ue8m0"}, fp8_blocks(16, 16, exponents="E8M0")
    ),
    "fp8 blocks, powers of two": Published(BLOCKS, fp8_blocks(16, 16, exponents="F32")),
    "fp8 blocks at the edge": Published({**FP8, "weight_block_size": [20, 20]}, fp8_blocks(20, 20)),
    "fp8, undeclared": Published(None, fp8_blocks(128, 128)),
    "fbgemm": Published({"quant_method": "fbgemm_fp8"}, fp8_blocks(1, 0, "weight_scale")),
    "float-quantized, whole": Published(
        compressed("float-quantized", type="float", num_bits=8, strategy="tensor"),
        fp8_blocks(0, 0, "weight_scale"),
    ),
    "float-quantized, rows": Published(
        compressed("float-quantized", type="float", num_bits=8, strategy="channel"),
        fp8_blocks(1, 0, "weight_scale"),
    ),
    "float-quantized, blocks": Published(
        compressed(
            "float-quantized", type="float", num_bits=8, strategy="block", block_structure=[16, 16]
        ),
        fp8_blocks(16, 16, "weight_scale"),
    ),
    "mxfp8": Published(
        compressed("mxfp8-quantized", type="float", num_bits=8, strategy="group", group_size=16),
        fp8_blocks(1, 16, "weight_scale", exponents="U8"),
    ),
    "int-quantized": Published(
        compressed("int-quantized", type="int", num_bits=8, strategy="channel", symmetric=True),
        int8_rows,
    ),
    "int4": Published(
        compressed("pack-quantized", type="int", num_bits=4, strategy="group", group_size=16),
        integers(4, 16),
    ),
    "int4, rows": Published(
        compressed("pack-quantized", type="int", num_bits=4, strategy="channel", group_size=-1),
        integers(4, -1),
    ),
    "int4, zero points": Published(
        compressed(
            "pack-quantized",
            type="int",
            num_bits=4,
            strategy="group",
            group_size=16,
            symmetric=False,
        ),
        integers(4, 16, zero_points=True),
    ),
    "int4, sorted columns": Published(
        compressed(
            "pack-quantized",
            type="int",
            num_bits=4,
            strategy="group",
            group_size=16,
            actorder="group",
        ),
        integers(4, 16, zero_points=True, sorted_columns=True),
    ),
    "int8 in words": Published(
        compressed("pack-quantized", type="int", num_bits=8, strategy="group", group_size=16),
        integers(8, 16, zero_points=True),
    ),
    "mxfp4-pack-quantized": Published(
        compressed(
            "mxfp4-pack-quantized", type="float", num_bits=4, strategy="group", group_size=32
        ),
        mxfp4("weight_packed", "weight_scale"),
    ),
    "mxfp4, deepseek": Published(
        {**FP8, "weight_block_size": [128, 128], "scale_fmt": "ue8m0", "expert_dtype": "fp4"},
        mxfp4("weight", "weight_scale_inv", e8m0=True),
    ),
    "nvfp4-pack-quantized": Published(
        compressed(
            "nvfp4-pack-quantized", type="float", num_bits=4, strategy="tensor_group", group_size=16
        ),
        nvfp4("weight_packed", "weight_global_scale"),
    ),
    "modelopt nvfp4": Published(None, nvfp4("weight", "weight_scale_2"), modelopt("NVFP4")),
    "modelopt fp8": Published(None, fp8_blocks(0, 0, "weight_scale"), modelopt("FP8")),
}
"""Formats of linear layers, and of experts that are one tensor each."""

GPT_OSS = Published(
    {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens", "lm_head"]},
    mxfp4("weight_blocks", "weight_scales", blocks=True),
    linears=False,
)
