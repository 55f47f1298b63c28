"""Which tensors make one weight, and which layout they have, by their names, dtypes and shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swarm.model.folder import Stored
from swarm.model.stored.float4 import DIVIDED, MULTIPLIED, Float4
from swarm.model.stored.float8 import SCALES, WEIGHTS, Scaled8Bit
from swarm.model.stored.method import Method
from swarm.model.stored.packed_int import GROUPS, ZERO_POINT, PackedInt
from swarm.model.stored.weight import PackedWeight

Parts = Mapping[str, Stored]
EXPONENTS = frozenset({"U8", "F8_E8M0"})
BYTES = frozenset({"U8", "I8"})
MICROSCALING_GROUP = 32
NVFP4_GROUP = 16
SHAPE = "weight_shape"


class Misfit(Exception):
    """Parts do not make a weight; the message says why, in words that follow the weight's name."""


@dataclass(frozen=True)
class Format:
    """Tensors that make one weight.

    Attributes:
        marker: the part by which a weight is known to be stored so.
        required: parts that have to be there, too.
        optional: parts that may be there.
        read: returns how the weight is stored; raises `Misfit`.
        methods: the publishers' methods that use it; empty for all.
    """

    marker: str
    required: tuple[str, ...]
    read: Callable[[Parts, Method], PackedWeight]
    optional: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.marker, *self.required, *self.optional)


def _scaled(parts: Parts, method: Method) -> PackedWeight:
    """Read a weight with the scales beside it: 8 bits a number, or two numbers a byte."""
    scale = next(each for each in parts if each in ("weight_scale_inv", "weight_scale", "scale"))
    numbers = parts["weight"]
    if numbers.dtype in BYTES and not (numbers.dtype == "I8" and method.int8):
        return _float4(parts, "weight", scale)
    scales = parts[scale]
    if numbers.dtype not in WEIGHTS:
        raise Misfit(f"has scales beside it, and the dtype {numbers.dtype}")
    if scales.dtype not in SCALES:
        raise Misfit(f"has scales of the dtype {scales.dtype}")
    count, shape = _matrices(numbers.shape)
    for block in method.blocks:
        layout = Scaled8Bit(numbers.dtype, scale, scales.dtype, block)
        if _same(scales.shape, layout.shapes(shape)[scale].shape, count):
            return PackedWeight(layout, shape, count)
    raise Misfit(_unshaped(numbers.shape, scales.shape))


def _packed(parts: Parts, method: Method) -> PackedWeight:
    """Read a weight of compressed-tensors: words of integers, or bytes of two floats."""
    if parts["weight_packed"].dtype == "U8":
        return _float4(parts, "weight_packed", "weight_scale")
    return _integers(parts, method)


def _integers(parts: Parts, method: Method) -> PackedWeight:
    words = parts["weight_packed"]
    scales = parts["weight_scale"]
    if words.dtype != "I32" or scales.dtype not in SCALES - EXPONENTS:
        raise Misfit(f"is packed as {words.dtype} with scales of the dtype {scales.dtype}")
    count, packed = _matrices(words.shape)
    for bits, group in method.ints:
        layout = PackedInt(bits, group, scales.dtype, ZERO_POINT in parts, GROUPS in parts)
        shape = (packed[0], packed[1] * layout.per_word)
        whole_groups = not group or shape[1] % group == 0
        expected = layout.shapes(shape)
        if whole_groups and all(
            parts[name].dtype == each.dtype and _same(parts[name].shape, each.shape, count)
            for name, each in expected.items()
        ):
            return PackedWeight(layout, shape, count)
    raise Misfit(_unshaped(words.shape, scales.shape))


def _float4(parts: Parts, numbers: str, scale: str) -> PackedWeight:
    count, (rows, half) = _matrices(parts[numbers].shape)
    whole = next((each for each in (MULTIPLIED, DIVIDED) if each in parts), None)
    group = NVFP4_GROUP if whole else MICROSCALING_GROUP
    scales = parts[scale]
    fitting = {"F8_E4M3"} if whole else EXPONENTS
    if parts[numbers].dtype not in BYTES or scales.dtype not in fitting:
        dtypes = f"{parts[numbers].dtype} with scales of the dtype {scales.dtype}"
        raise Misfit(f"is stored as {dtypes}")
    shape = (rows, 2 * half)
    layout = Float4(numbers, parts[numbers].dtype, scale, scales.dtype, group, whole)
    if shape[1] % group or not _same(scales.shape, layout.shapes(shape)[scale].shape, count):
        raise Misfit(_unshaped(parts[numbers].shape, scales.shape))
    if whole and (parts[whole].dtype != "F32" or not _same(parts[whole].shape, (1,), count)):
        raise Misfit(f"has a scale for all of it with the shape {list(parts[whole].shape)}")
    return PackedWeight(layout, shape, count)


def _blocks(parts: Parts, method: Method) -> PackedWeight:
    """Read gpt-oss's blocks [experts, rows, groups, 16] and scales [experts, rows, groups]."""
    blocks = parts["weight_blocks"]
    scales = parts["weight_scales"]
    if (blocks.dtype, scales.dtype) != ("U8", "U8"):
        raise Misfit(f"is stored as {blocks.dtype} with scales of the dtype {scales.dtype}")
    if len(blocks.shape) != 4 or blocks.shape != (*scales.shape, MICROSCALING_GROUP // 2):
        raise Misfit(_unshaped(blocks.shape, scales.shape))
    count, rows, groups = scales.shape
    layout = Float4("weight_blocks", "U8", "weight_scales", "U8", MICROSCALING_GROUP)
    return PackedWeight(layout, (rows, groups * MICROSCALING_GROUP), count, turned=True)


def _matrices(shape: tuple[int, ...]) -> tuple[int | None, tuple[int, int]]:
    """Return how many matrices there are (None for one alone), and the shape of each."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise Misfit(f"has the shape {list(shape)}, which is that of no matrix")
    return (shape[0] if len(shape) == 3 else None), (shape[-2], shape[-1])


def _same(stored: tuple[int, ...], expected: tuple[int, ...], count: int | None) -> bool:
    """Return whether a part has a shape, wherever it has dimensions of 1."""
    full = expected if count is None else (count, *expected)
    return [n for n in stored if n != 1] == [n for n in full if n != 1]


def _unshaped(numbers: tuple[int, ...], scales: tuple[int, ...]) -> str:
    return f"has the shape {list(numbers)}, to which scales of the shape {list(scales)} do not fit"


FORMATS: tuple[Format, ...] = (
    Format(
        "weight_packed",
        ("weight_scale",),
        _packed,
        optional=(DIVIDED, ZERO_POINT, GROUPS, SHAPE),
    ),
    Format("weight_blocks", ("weight_scales",), _blocks),
    Format("weight_scale_inv", ("weight",), _scaled),
    Format("weight_scale", ("weight",), _scaled, optional=(MULTIPLIED,)),
    Format("scale", ("weight",), _scaled, methods=frozenset({"fp8"})),  # DeepSeek-V4
)
"""The formats of all methods. A tensor belongs to the first one that has it as a part."""

IGNORED = frozenset(
    {
        "input_scale",
        "input_scale_ub",
        "input_global_scale",
        "input_zero_point",
        "output_scale",
        "output_zero_point",
        "activation_scale",
        "k_scale",
        "v_scale",
        "q_scale",
        "k_zero_point",
        "v_zero_point",
        "k_global_scale",
        "v_global_scale",
    }
)
"""Scales of what layers read and of caches, for engines that round these. Here they are not."""
