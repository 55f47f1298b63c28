"""What publishers say of their bits is understood, or refused with their own word for it."""

from typing import Any

import pytest

from helpers.published import compressed
from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.stored.method import BY_ROW, UNDECLARED, WHOLE, Method, find_method


def method(settings: Any, **files: Any) -> Method:
    config = {} if settings is None else {"quantization_config": settings}
    return find_method("m", config, list(files), files.__getitem__)


def test_nothing_may_be_said() -> None:
    assert method(None) is UNDECLARED
    assert find_method("m", {"quantization_config": None}, [], dict) is UNDECLARED


def test_it_may_stand_in_the_configuration_of_a_part() -> None:
    config = {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}
    assert find_method("m", config, [], dict).name == "mxfp4"


def test_which_weights_share_a_scale() -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 64]}
    assert method(fp8).blocks[0] == (128, 64)
    assert method({"quant_method": "fp8"}).blocks[:2] == (WHOLE, BY_ROW)
    rows = compressed("float-quantized", type="float", num_bits=8, strategy="channel")
    assert method(rows).blocks == (BY_ROW,)
    groups = compressed("pack-quantized", type="int", num_bits=4, group_size=32)
    assert method(groups).ints == ((4, 32),)
    assert method(compressed("pack-quantized", num_bits=4, group_size=-1)).ints == ((4, None),)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "vptq"}, "'vptq' in config.json"),
        ({"bits": 4}, "a method without a name in config.json"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "GPTQ with 3 bits"),
        (
            {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
            "GPTQ's format 'marlin'",
        ),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "in the order 'gemv'"),
        (
            {"quant_method": "bitsandbytes", "bnb_4bit_quant_storage": "bfloat16"},
            "bitsandbytes with codes in 'bfloat16'",
        ),
        (compressed("marlin-24", num_bits=4), "format 'marlin-24'"),
        (compressed("pack-quantized", num_bits=3, group_size=32), "integers of 3 bits"),
        (compressed("float-quantized", strategy="attn_head"), "scales by 'attn_head'"),
        (
            {**compressed("pack-quantized", num_bits=4), "transform_config": {"u": {}}},
            "transforms of what the layers read",
        ),
        (
            {**compressed("dense"), "sparsity_config": {"format": "sparse-24-bitmask"}},
            "sparsity 'sparse-24-bitmask'",
        ),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "ModelOpt's 'W4A8_AWQ'"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(settings: Any, words: str) -> None:
    with pytest.raises(UnsupportedModel, match="quantized in a way that is not read") as caught:
        method(settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "weight_block_size": [128, 0]},
        {"quant_method": "fp8", "weight_block_size": ["a", 1 << 40]},
        {"quant_method": "fp8", "weight_block_size": {"x": 1}},
        {"quant_method": "gptq", "bits": 4, "group_size": "x"},
        {"quant_method": "awq", "bits": 4, "group_size": 0},
        compressed("pack-quantized", num_bits=4, strategy="group", group_size="32"),
    ],
)
def test_settings_of_another_kind_are_told(settings: Any) -> None:
    with pytest.raises(DamagedModel, match="settings of quantized weights that cannot be read"):
        method(settings)


def test_modelopt_says_it_in_a_file_of_its_own() -> None:
    algorithm = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head", "*.gate"]}}
    found = method(None, **{"hf_quant_config.json": algorithm})
    assert found.name == "modelopt"
    assert "lm_head" in found.plain
