"""Which tensors make one weight, and which layout they have, by their names, dtypes and shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch

from swarm.model.folder import Stored
from swarm.model.stored.bitsandbytes import NESTED, QUANT_MAP, STATES, from_4_bits, from_8_bits
from swarm.model.stored.by_inputs import AWQ_BITS, from_awq, from_gptq
from swarm.model.stored.float4 import DIVIDED, MULTIPLIED, Float4
from swarm.model.stored.float8 import SCALES, WEIGHTS, Scaled8Bit
from swarm.model.stored.method import BY_COLUMN, GPTQ_GROUPS, GROUPS, ZERO_POINT, Method
from swarm.model.stored.nf4 import FP4_NUMBERS, NUMBERS, NormalFloat4
from swarm.model.stored.nf4 import SCALES as ABSMAX
from swarm.model.stored.packed_int import WORD_BITS, PackedInt
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
        arrange: makes the parts of the layout out of those in the checkpoint, where these are
            others; raises ValueError, with words like those of `Misfit`.
    """

    marker: str
    required: tuple[str, ...]
    read: Callable[[Parts, Method], PackedWeight]
    optional: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    arrange: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]] = dict

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
        if block == BY_COLUMN and count is None:  # of experts [inputs, outputs] alone
            continue
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


def _gptq(parts: Parts, method: Method) -> PackedWeight:
    """Read words of codes [inputs / codes in a word, outputs], and scales [groups, outputs]."""
    inputs, outputs = _matrices(parts["qweight"].shape)[1]
    bits, group = method.ints[0]
    layout = PackedInt(
        bits,
        group,
        parts["scales"].dtype,
        zero_points=True,
        sorted_columns=GPTQ_GROUPS in parts,
        zero_offset=1 if method.name == "gptq" else 0,
    )
    weight = PackedWeight(layout, (outputs, inputs * layout.per_word))
    turned = {part: each.shape[::-1] for part, each in layout.shapes(weight.shape).items()}
    words = {"qweight": turned["weight_packed"], "qzeros": turned[ZERO_POINT]}
    _check_by_inputs(parts, weight, {**words, "scales": turned["weight_scale"]})
    if GPTQ_GROUPS in parts and parts[GPTQ_GROUPS] != Stored("I32", (weight.shape[1],)):
        raise Misfit(f"has a g_idx of the shape {list(parts['g_idx'].shape)}")
    return weight


def _awq(parts: Parts, method: Method) -> PackedWeight:
    """Read words of codes [inputs, outputs / 8], and scales [groups, outputs]."""
    inputs, words = _matrices(parts["qweight"].shape)[1]
    bits, group = method.ints[0]
    layout = PackedInt(bits, group, parts["scales"].dtype, zero_points=True)
    weight = PackedWeight(layout, (words * WORD_BITS // AWQ_BITS, inputs))
    groups = inputs // group if group else 1
    shapes = {"qweight": (inputs, words), "qzeros": (groups, words)}
    _check_by_inputs(parts, weight, {**shapes, "scales": (groups, weight.shape[0])})
    return weight


def _check_by_inputs(
    parts: Parts, weight: PackedWeight, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `Misfit` unless parts have these shapes, and whole words and groups make the weight."""
    layout = weight.layout
    assert isinstance(layout, PackedInt)
    scales = parts["scales"]
    words = (parts["qweight"].dtype, parts["qzeros"].dtype)
    if words != ("I32", "I32") or scales.dtype not in SCALES - EXPONENTS:
        raise Misfit(f"is packed as {words[0]} with scales of the dtype {scales.dtype}")
    rows, columns = weight.shape
    whole = not (rows % layout.per_word or columns % layout.per_word)
    whole = whole and not (layout.group and columns % layout.group)
    if not whole or any(parts[part].shape != shape for part, shape in shapes.items()):
        raise Misfit(_unshaped(parts["qweight"].shape, scales.shape))


def _four_bits(parts: Parts, method: Method) -> PackedWeight:
    """Read bitsandbytes' codes: what its JSON says stands in place of the JSON's own shape."""
    kind, marker = next((kind, each) for kind, each in STATES.items() if each in parts)
    rows, columns, block, nested = parts[marker].shape
    scales = parts[ABSMAX]
    count = rows * columns // block
    nested_scales = parts.get(NESTED[0])
    fits = columns % block == 0 and block % 2 == 0 and parts["weight"].dtype == "U8"
    fits = fits and prod(parts["weight"].shape) == rows * columns // 2
    fits = fits and prod(scales.shape) == count and scales.dtype == ("U8" if nested else "F32")
    if nested:
        fits = fits and all(each in parts for each in NESTED) and parts[NESTED[1]].shape == (256,)
        fits = fits and nested_scales is not None
        fits = fits and prod(nested_scales.shape) == -(-count // nested)  # type: ignore[union-attr]
    if not fits:
        raise Misfit(_unshaped(parts["weight"].shape, scales.shape))
    numbers = NUMBERS if kind == "nf4" else FP4_NUMBERS
    return PackedWeight(NormalFloat4(block, numbers), (rows, columns))


def _eight_bits(parts: Parts, method: Method) -> PackedWeight:
    """Read bitsandbytes' int8 with the largest value of each row."""
    numbers, largest = parts["weight"], parts["SCB"]
    if (numbers.dtype, largest.dtype) != ("I8", "F32"):
        raise Misfit(f"is stored as {numbers.dtype} with scales of the dtype {largest.dtype}")
    _, shape = _matrices(numbers.shape)
    if len(numbers.shape) != 2 or not _same(largest.shape, (shape[0], 1), None):
        raise Misfit(_unshaped(numbers.shape, largest.shape))
    return PackedWeight(Scaled8Bit("I8", "weight_scale", "F32", (1, None)), shape)


def _matrices(shape: tuple[int, ...]) -> tuple[int | None, tuple[int, int]]:
    """Return how many matrices there are (None for one alone), and the shape of each."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise Misfit(f"has the shape {list(shape)}, which is that of no matrix")
    return (shape[0] if len(shape) == 3 else None), (shape[-2], shape[-1])


def _same(stored: tuple[int, ...], expected: tuple[int, ...], count: int | None) -> bool:
    """Return whether a part has a shape.

    One number may have any dimensions, and a column of scales only one. ModelOpt writes scales of
    blocks as [rows, 1, columns, 1].
    """
    full = expected if count is None else (count, *expected)
    if prod(stored) == prod(full) == 1:
        return True
    written = {full, full[:-1] if full[-1] == 1 else full}
    if len(full) == 2:
        written.add((full[0], 1, full[1], 1))
    return stored in written


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
    Format(
        "qweight",
        ("qzeros", "scales"),
        _gptq,
        optional=(GPTQ_GROUPS,),
        methods=frozenset({"gptq", "gptq_v2"}),
        arrange=from_gptq,
    ),
    Format("qweight", ("qzeros", "scales"), _awq, methods=frozenset({"awq"}), arrange=from_awq),
    *(
        Format(
            state,
            ("weight", ABSMAX, QUANT_MAP),
            _four_bits,
            optional=NESTED,
            methods=frozenset({"bitsandbytes"}),
            arrange=from_4_bits,
        )
        for state in STATES.values()
    ),
    Format(
        "SCB",
        ("weight",),
        _eight_bits,
        optional=("weight_format",),
        methods=frozenset({"bitsandbytes"}),
        arrange=from_8_bits,
    ),
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
