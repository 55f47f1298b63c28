"""What a publisher says about the bits of a checkpoint's weights, read without any heavy library.

It stands in config.json as ``quantization_config``, also in that of a part of the model, or in
ModelOpt's ``hf_quant_config.json``. Which weights are packed follows from the tensors that are
there; this tells how their bits are meant.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.errors import DamagedModel, UnsupportedModel

CONFIG_FILE = "config.json"
MODELOPT_FILE = "hf_quant_config.json"
# Files in which others say what config.json says, too: AutoGPTQ, AutoAWQ.
OTHER_FILES = ("quantize_config.json", "quant_config.json")
KEYS = ("quantization_config", "compression_config", "quantization")
MAX_NESTING = 4  # of configurations that hold others
MAX_SIDE = 1 << 16  # of a block or group

ZERO_POINT = "weight_zero_point"
GROUPS = "weight_g_idx"
GPTQ_GROUPS = "g_idx"
# compressed-tensors' words for columns that name their groups
SORTED = ("group", "dynamic", "true")

Block = tuple[int | None, int | None]
"""Rows and columns that share a scale; None for all of them."""

WHOLE: Block = (None, None)
BY_ROW: Block = (1, None)
BY_COLUMN: Block = (None, 1)
DEEPSEEK_BLOCK: Block = (128, 128)
MICROSCALING_BLOCK: Block = (1, 32)

COMPRESSED_FORMATS = frozenset(
    {
        "dense",
        "float-quantized",
        "int-quantized",
        "naive-quantized",
        "pack-quantized",
        "nvfp4-pack-quantized",
        "mxfp4-pack-quantized",
        "mxfp8-quantized",
        "mixed-precision",
    }
)
MODELOPT_ALGORITHMS = frozenset(
    {
        "FP8",
        "FP8_PER_CHANNEL_PER_TOKEN",
        "FP8_PB_WO",
        "NVFP4",
        "W4A16_NVFP4",
        "W4A8_NVFP4_FP8",
        "MXFP4",
        "MXFP8",
        "MIXED_PRECISION",
    }
)


@dataclass(frozen=True)
class Method:
    """How the packed weights of a checkpoint may be stored.

    Attributes:
        name: the publisher's word for it.
        blocks: of 8-bit weights.
        ints: bits and group of integers in words; a group of None is a row.
        int8: whether 8-bit integers are weights on their own.
        plain: modules that are named as not packed.
        needed: parts that each packed weight must have: without them it would mean other numbers.
    """

    name: str
    blocks: tuple[Block, ...] = ()
    ints: tuple[tuple[int, int | None], ...] = ()
    int8: bool = False
    plain: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()


UNDECLARED = Method("none", blocks=(DEEPSEEK_BLOCK,))
"""Of a checkpoint that says nothing: FP8 with its scales beside it explains itself."""


class _Unknown(Exception):
    """A setting that is not known, in words."""


def find_method(
    model: str,
    config: Mapping[str, Any],
    files: Collection[str],
    read: Callable[[str], Mapping[str, Any]],
) -> Method:
    """Return how a checkpoint's packed weights are stored; `UNDECLARED` if it does not say.

    Args:
        config: the content of config.json.
        files: the names of all files beside it.
        read: reads one of them as JSON.

    Raises:
        UnsupportedModel: for a method that is not known.
        DamagedModel: for settings of another type than theirs.
    """
    settings = _declared(config)
    file = CONFIG_FILE
    if settings is None and MODELOPT_FILE in files:
        file = MODELOPT_FILE
        settings = {"quant_method": "modelopt", **_mapping(read(file).get("quantization"))}
    if settings is None:
        other = next((each for each in OTHER_FILES if each in files), None)
        if other is None:
            return UNDECLARED
        raise _unsupported(model, f"{other} says so, and {CONFIG_FILE} does not")
    try:
        name = str(settings.get("quant_method", ""))[:50]
        if name not in METHODS:
            raise _Unknown(f"{name!r} in {file}" if name else f"a method without a name in {file}")
        return METHODS[name](settings)
    except _Unknown as error:
        raise _unsupported(model, str(error)) from None
    except (TypeError, ValueError, AttributeError) as error:
        why = f"has settings of quantized weights that cannot be read ({error})"
        raise DamagedModel(model, file, why) from None


def _unsupported(model: str, what: str) -> UnsupportedModel:
    problem = f"its weights are quantized in a way that is not read: {what}"
    return UnsupportedModel(model, f"{problem}; give another copy of the model")


def _declared(config: Any, nesting: int = 0) -> Mapping[str, Any] | None:
    """Return the settings in a configuration or in one nested in it; None without any."""
    if not isinstance(config, Mapping) or nesting > MAX_NESTING:
        return None
    own = next((config[key] for key in KEYS if config.get(key)), None)
    if own is not None:
        return _mapping(own)
    nested = (_declared(value, nesting + 1) for value in config.values())
    return next((found for found in nested if found is not None), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _fp8(settings: Mapping[str, Any]) -> Method:
    """Read the settings of DeepSeek, Qwen and MiniMax: transformers' FineGrainedFP8Config."""
    block = settings.get("weight_block_size")
    blocks = (_block(block),) if block else (WHOLE, BY_ROW)
    # Experts may have 4 bits in groups, of which their tensors tell.
    plain = _names(settings.get("modules_to_not_convert"))
    return Method("fp8", (*blocks, MICROSCALING_BLOCK), plain=plain)


def _fbgemm(settings: Mapping[str, Any]) -> Method:
    plain = _names(settings.get("modules_to_not_convert"))
    return Method("fbgemm_fp8", (BY_ROW, BY_COLUMN), plain=plain)


def _mxfp4(settings: Mapping[str, Any]) -> Method:
    return Method("mxfp4", plain=_names(settings.get("modules_to_not_convert")))


def _modelopt(settings: Mapping[str, Any]) -> Method:
    """Read the settings of https://github.com/NVIDIA/Model-Optimizer, export to Hugging Face."""
    algorithm = settings.get("quant_algo")
    if algorithm is not None and algorithm not in MODELOPT_ALGORITHMS:
        raise _Unknown(f"ModelOpt's {str(algorithm)[:50]!r}")
    blocks = (WHOLE, BY_ROW, DEEPSEEK_BLOCK, MICROSCALING_BLOCK)
    plain = _names(settings.get("exclude_modules", settings.get("ignore")))
    return Method("modelopt", blocks, plain=plain)


def _compressed_tensors(settings: Mapping[str, Any]) -> Method:
    """Read a QuantizationConfig of https://github.com/vllm-project/compressed-tensors."""
    groups = [_mapping(each) for each in _mapping(settings.get("config_groups")).values()]
    formats = {settings.get("format") or "dense", *(group.get("format") for group in groups)}
    for each in formats - {None}:
        if each not in COMPRESSED_FORMATS:
            raise _Unknown(f"compressed-tensors' format {str(each)[:50]!r}")
    sparsity = _mapping(settings.get("sparsity_config")).get("format", "dense")
    if sparsity != "dense":
        raise _Unknown(f"compressed-tensors' sparsity {str(sparsity)[:50]!r}")
    if settings.get("transform_config"):
        raise _Unknown("compressed-tensors with transforms of what the layers read")
    blocks: list[Block] = []
    ints: list[tuple[int, int | None]] = []
    for weights in (_mapping(group.get("weights")) for group in groups):
        block = _strategy(weights)
        if weights.get("type", "int") == "int":
            bits = weights.get("num_bits")
            if type(bits) is not int or bits not in (4, 8):
                raise _Unknown(f"integers of {str(bits)[:20]} bits")
            ints.append((bits, block[1]))
        blocks.append(block)
    return Method(
        "compressed-tensors",
        tuple(dict.fromkeys(blocks)),
        tuple(dict.fromkeys(ints)),
        int8=any(bits == 8 for bits, _ in ints),
        plain=_names(settings.get("ignore")),
        needed=_needed([_mapping(group.get("weights")) for group in groups]),
    )


def _needed(weights: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the parts that the weights of all groups of modules have."""
    found = set()
    if weights and all(each.get("symmetric", True) is False for each in weights):
        found.add(ZERO_POINT)
    if weights and all(str(each.get("actorder")).lower() in SORTED for each in weights):
        found.add(GROUPS)
    return frozenset(found)


def _gptq(settings: Mapping[str, Any]) -> Method:
    """Read the settings of AutoGPTQ and GPTQModel (transformers' GPTQConfig)."""
    bits = settings.get("bits")
    if type(bits) is not int or bits not in (4, 8):
        raise _Unknown(f"GPTQ with {str(bits)[:20]} bits")
    version = settings.get("checkpoint_format") or "gptq"
    if version not in ("gptq", "gptq_v2"):
        raise _Unknown(f"GPTQ's format {str(version)[:50]!r}")
    size = settings.get("group_size", -1)
    group = None if size == -1 else _size(size)
    plain = _names(settings.get("modules_in_block_to_not_quantize"))
    needed = frozenset({GPTQ_GROUPS} if settings.get("desc_act") and group else ())
    return Method(version, ints=((bits, group),), plain=plain, needed=needed)


def _awq(settings: Mapping[str, Any]) -> Method:
    """Read the settings of AutoAWQ (transformers' AwqConfig)."""
    bits = settings.get("bits", settings.get("w_bit"))
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if bits != 4 or version != "gemm":
        raise _Unknown(f"AWQ with {str(bits)[:20]} bits in the order {version[:50]!r}")
    size = settings.get("group_size", settings.get("q_group_size", 128))
    group = None if size == -1 else _size(size)
    return Method("awq", ints=((4, group),), plain=_names(settings.get("modules_to_not_convert")))


def _bitsandbytes(settings: Mapping[str, Any]) -> Method:
    """Read transformers' BitsAndBytesConfig. Each weight of 4 bits says itself how it is stored."""
    storage = settings.get("bnb_4bit_quant_storage") or "uint8"
    if storage != "uint8":
        raise _Unknown(f"bitsandbytes with codes in {str(storage)[:50]!r}")
    return Method("bitsandbytes", plain=_names(settings.get("llm_int8_skip_modules")))


def _strategy(weights: Mapping[str, Any]) -> Block:
    """Return which weights share a scale."""
    strategy = weights.get("strategy")
    size = weights.get("group_size")
    if strategy is None:  # as compressed-tensors infers it
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    if strategy in ("group", "tensor_group"):
        return (1, _size(size))
    if strategy == "block":
        return _block(weights.get("block_structure"))
    known: dict[Any, Block] = {"tensor": WHOLE, "channel": BY_ROW}
    if strategy not in known:
        raise _Unknown(f"scales by {str(strategy)[:50]!r}")
    return known[strategy]


def _block(value: Any) -> Block:
    if isinstance(value, str):  # "128x128"
        value = [int(each) for each in value.split("x")]
    rows, columns = value
    return (_size(rows), _size(columns))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_SIDE:
        raise ValueError(f"{str(value)[:50]} is no size of a group")
    return value


def _names(value: Any) -> frozenset[str]:
    names = value if isinstance(value, list) else []
    return frozenset(each for each in names if isinstance(each, str))


METHODS: dict[str, Callable[[Mapping[str, Any]], Method]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "mxfp4": _mxfp4,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "compressed-tensors": _compressed_tensors,
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
}
"""How the settings of each ``quant_method`` are read."""
