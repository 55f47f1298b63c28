"""Checkpoints in the bits of publishers, made by hand from the formats' specifications.

Each format packs a matrix into the tensors of a checkpoint, and says which numbers it means. The
code here is simple and slow, and shares nothing with what reads the formats.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.models import Architecture
from helpers.published_bitsandbytes import bnb_4bit, bnb_8bit
from helpers.published_integers import Pack, Tensors, awq, gptq, integers

FLOAT4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
LARGEST_E4M3 = 448.0
LINEAR = re.compile(r".*layers\.\d+\..*(_proj|_kqv|w[123]|fc[12]|linear)\.weight")


@dataclass(frozen=True)
class Published:
    """A format.

    Attributes:
        settings: config.json's ``quantization_config``; None without one.
        pack: packs one matrix.
        files: further files beside it, as JSON.
        linears: whether linear layers are packed, too, or experts alone.
        turned: whether experts that are one tensor [experts, inputs, outputs] in the model are
            packed with their outputs as rows.
    """

    settings: dict[str, Any] | None
    pack: Pack
    files: dict[str, Any] = field(default_factory=dict)
    linears: bool = True
    turned: bool = True


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
                wide = tensor.transpose(1, 2) if published.turned else tensor
                each = [published.pack(one.contiguous()) for one in wide]
                own = torch.stack([one for _, one in each])
                meant[name] = (own.transpose(1, 2) if published.turned else own).contiguous()
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
    if part.startswith("weight"):
        return weight + part.removeprefix("weight")
    return f"{weight.rpartition('.')[0]}.{part}"


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


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
BNB4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
BNB8 = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}


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
        compressed("pack-quantized", type="int", num_bits=8, strategy="channel"),
        integers(8, -1),
    ),
    "int8 in words, zero points": Published(
        compressed(
            "pack-quantized",
            type="int",
            num_bits=8,
            strategy="group",
            group_size=16,
            symmetric=False,
        ),
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
    "gptq": Published(GPTQ, gptq(4, 16)),
    "gptq, sorted inputs": Published({**GPTQ, "desc_act": True}, gptq(4, 16, sorted_inputs=True)),
    "gptq, 8 bits, rows": Published({**GPTQ, "bits": 8, "group_size": -1}, gptq(8, -1)),
    "gptq, version 2": Published({**GPTQ, "checkpoint_format": "gptq_v2"}, gptq(4, 16, version=2)),
    "awq": Published(AWQ, awq(16)),
    "bitsandbytes nf4": Published(BNB4, bnb_4bit("nf4")),
    "bitsandbytes nf4, nested": Published(
        {**BNB4, "bnb_4bit_use_double_quant": True}, bnb_4bit("nf4", nested=True)
    ),
    "bitsandbytes fp4": Published({**BNB4, "bnb_4bit_quant_type": "fp4"}, bnb_4bit("fp4")),
    "bitsandbytes int8": Published(BNB8, bnb_8bit),
    "modelopt nvfp4": Published(None, nvfp4("weight", "weight_scale_2"), modelopt("NVFP4")),
    "modelopt fp8": Published(None, fp8_blocks(0, 0, "weight_scale"), modelopt("FP8")),
}
"""Formats of linear layers, and of experts that are one tensor each."""

GPT_OSS = Published(
    {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens", "lm_head"]},
    mxfp4("weight_blocks", "weight_scales", blocks=True),
    linears=False,
)

LLAMA4 = Published(
    {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]},
    fp8_blocks(0, 1, "weight_scale"),
    linears=False,
    turned=False,
)
