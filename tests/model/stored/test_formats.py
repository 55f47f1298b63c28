"""Which layout a weight has, by the dtypes and shapes of its tensors; others are misfits."""

from dataclasses import dataclass, replace

import pytest

from swarm.model.folder import Stored
from swarm.model.stored.bitsandbytes import NESTED, QUANT_MAP, STATES
from swarm.model.stored.float4 import DIVIDED, MULTIPLIED, Float4
from swarm.model.stored.float8 import Scaled8Bit
from swarm.model.stored.formats import FORMATS, Format, Misfit
from swarm.model.stored.method import (
    BY_COLUMN,
    BY_ROW,
    GPTQ_GROUPS,
    GROUPS,
    WHOLE,
    ZERO_POINT,
    Method,
)
from swarm.model.stored.nf4 import FP4_NUMBERS, NUMBERS, NormalFloat4
from swarm.model.stored.nf4 import SCALES as ABSMAX
from swarm.model.stored.packed_int import PackedInt
from swarm.model.stored.weight import PackedWeight

Shape = tuple[int, ...]
FP8 = Method("fp8", blocks=((4, 4), BY_ROW, WHOLE))
FBGEMM = Method("fbgemm_fp8", blocks=(BY_COLUMN,))
INTS = Method("compressed-tensors", blocks=(BY_ROW,), ints=((4, 16), (8, None)), int8=True)
GPTQ = Method("gptq", ints=((4, 16),))
AWQ = Method("awq", ints=((4, 16),))
BITSANDBYTES = Method("bitsandbytes")
NF4, FP4 = STATES["nf4"], STATES["fp4"]


@dataclass(frozen=True)
class Case:
    """The tensors of a weight, and how they are read; None for those that make none."""

    method: Method
    parts: dict[str, tuple[str, Shape]]
    layout: object = None
    shape: tuple[int, int] = (8, 32)
    count: int | None = None
    turned: bool = False


def format_of(case: Case) -> Format:
    """Return the first format whose tensors are all there."""
    return next(
        each
        for each in FORMATS
        if {each.marker, *each.required} <= case.parts.keys() <= set(each.parts)
        and (not each.methods or case.method.name in each.methods)
    )


def read(case: Case) -> PackedWeight:
    parts = {name: Stored(*part) for name, part in case.parts.items()}
    return format_of(case).read(parts, case.method)


def scaled(dtype: str, scale: str, numbers: Shape, scales: Shape, name: str = "weight_scale"):
    return {"weight": (dtype, numbers), name: (scale, scales)}


def packed(words: Shape, scales: Shape, scale: str = "BF16", **more: tuple[str, Shape]):
    return {"weight_packed": ("I32", words), "weight_scale": (scale, scales), **more}


def by_inputs(words: Shape, zeros: Shape, scales: Shape, **more: tuple[str, Shape]):
    return {"qweight": ("I32", words), "qzeros": ("I32", zeros), "scales": ("F16", scales), **more}


def four_bits(
    kind: str, nested: int = 0, scale: str = "F32", block: int = 64
) -> dict[str, tuple[str, Shape]]:
    """A weight [8, 128], whose JSON stands for its content."""
    return {
        "weight": ("U8", (512, 1)),
        ABSMAX: (scale, (16,)),
        QUANT_MAP: ("F32", (16,)),
        kind: ("U8", (8, 128, block, nested)),
    }


NESTED_PARTS = {NESTED[0]: ("F32", (4,)), NESTED[1]: ("F32", (256,))}
FLOAT4_SHAPE = (8, 16)  # of 8 x 32 numbers
SOUND = {
    "blocks": Case(
        FP8,
        scaled("F8_E4M3", "F32", (8, 30), (2, 8), "weight_scale_inv"),
        Scaled8Bit("F8_E4M3", "weight_scale_inv", "F32", (4, 4)),
        (8, 30),
    ),
    "rows": Case(
        FP8,
        scaled("F8_E5M2", "BF16", (8, 32), (8, 1)),
        Scaled8Bit("F8_E5M2", "weight_scale", "BF16", BY_ROW),
    ),
    "rows, flat": Case(
        FP8,
        scaled("F8_E4M3", "F32", (8, 32), (8,)),
        Scaled8Bit("F8_E4M3", "weight_scale", "F32", BY_ROW),
    ),
    "one scale": Case(
        FP8,
        scaled("F8_E4M3", "F32", (8, 32), ()),
        Scaled8Bit("F8_E4M3", "weight_scale", "F32", WHOLE),
    ),
    "ModelOpt's four dimensions": Case(
        FP8,
        scaled("F8_E4M3", "F32", (8, 32), (2, 1, 8, 1)),
        Scaled8Bit("F8_E4M3", "weight_scale", "F32", (4, 4)),
    ),
    "DeepSeek-V4": Case(
        FP8,
        scaled("F8_E4M3", "F8_E8M0", (8, 32), (2, 8), "scale"),
        Scaled8Bit("F8_E4M3", "scale", "F8_E8M0", (4, 4)),
    ),
    "experts": Case(
        FP8,
        scaled("F8_E4M3", "F32", (3, 8, 32), (3, 2, 8)),
        Scaled8Bit("F8_E4M3", "weight_scale", "F32", (4, 4)),
        count=3,
    ),
    "experts by column": Case(
        FBGEMM,
        scaled("F8_E4M3", "F32", (3, 8, 32), (3, 1, 32)),
        Scaled8Bit("F8_E4M3", "weight_scale", "F32", BY_COLUMN),
        count=3,
    ),
    "int8 rows": Case(
        INTS,
        scaled("I8", "F32", (8, 32), (8, 1)),
        Scaled8Bit("I8", "weight_scale", "F32", BY_ROW),
    ),
    "int4": Case(INTS, packed((8, 4), (8, 2)), PackedInt(4, 16, "BF16")),
    "int8 words": Case(INTS, packed((8, 8), (8, 1)), PackedInt(8, None, "BF16")),
    "int4, zero points, groups": Case(
        INTS,
        packed(
            (8, 4),
            (8, 2),
            weight_shape=("I64", (2,)),
            **{ZERO_POINT: ("I32", (1, 2)), GROUPS: ("I32", (32,))},
        ),
        PackedInt(4, 16, "BF16", zero_points=True, sorted_columns=True),
    ),
    "int4 experts": Case(INTS, packed((3, 8, 4), (3, 8, 2)), PackedInt(4, 16, "BF16"), count=3),
    "mxfp4": Case(
        FP8,
        scaled("I8", "F8_E8M0", FLOAT4_SHAPE, (8, 1)),
        Float4("weight", "I8", "weight_scale", "F8_E8M0", 32),
    ),
    "nvfp4, multiplied": Case(
        INTS,
        scaled("U8", "F8_E4M3", FLOAT4_SHAPE, (8, 2)) | {MULTIPLIED: ("F32", ())},
        Float4("weight", "U8", "weight_scale", "F8_E4M3", 16, MULTIPLIED),
    ),
    "nvfp4, divided": Case(
        INTS,
        {
            "weight_packed": ("U8", FLOAT4_SHAPE),
            "weight_scale": ("F8_E4M3", (8, 2)),
            DIVIDED: ("F32", (1,)),
        },
        Float4("weight_packed", "U8", "weight_scale", "F8_E4M3", 16, DIVIDED),
    ),
    "gpt-oss": Case(
        Method("mxfp4"),
        {"weight_blocks": ("U8", (3, 8, 1, 16)), "weight_scales": ("U8", (3, 8, 1))},
        Float4("weight_blocks", "U8", "weight_scales", "U8", 32),
        count=3,
        turned=True,
    ),
    "GPTQ": Case(
        GPTQ,
        by_inputs((4, 8), (2, 1), (2, 8)),
        PackedInt(4, 16, "F16", zero_points=True, zero_offset=1),
    ),
    "GPTQ v2, sorted": Case(
        replace(GPTQ, name="gptq_v2"),
        by_inputs((4, 8), (2, 1), (2, 8), **{GPTQ_GROUPS: ("I32", (32,))}),
        PackedInt(4, 16, "F16", zero_points=True, sorted_columns=True),
    ),
    "AWQ": Case(
        AWQ,
        by_inputs((32, 2), (2, 2), (2, 16)),
        PackedInt(4, 16, "F16", zero_points=True),
        (16, 32),
    ),
    "AWQ, a scale a row": Case(
        replace(AWQ, ints=((4, None),)),
        by_inputs((32, 1), (1, 1), (1, 8)),
        PackedInt(4, None, "F16", zero_points=True),
    ),
    "nf4": Case(BITSANDBYTES, four_bits(NF4), NormalFloat4(64, NUMBERS), (8, 128)),
    "fp4, nested": Case(
        BITSANDBYTES,
        four_bits(FP4, nested=5, scale="U8") | NESTED_PARTS,
        NormalFloat4(64, FP4_NUMBERS),
        (8, 128),
    ),
    "LLM.int8": Case(
        BITSANDBYTES,
        {"weight": ("I8", (8, 32)), "SCB": ("F32", (8,)), "weight_format": ("U8", ())},
        Scaled8Bit("I8", "weight_scale", "F32", BY_ROW),
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_weight_is_read_by_the_dtypes_and_shapes_of_its_tensors(name: str) -> None:
    case = SOUND[name]
    assert read(case) == PackedWeight(case.layout, case.shape, case.count, case.turned)  # type: ignore[arg-type]


def spoilt(name: str, **parts: tuple[str, Shape] | None) -> Case:
    """Return a sound case with other tensors; None takes one away."""
    case = SOUND[name]
    changed = {part: each for part, each in (case.parts | parts).items() if each is not None}
    return replace(case, parts=changed)


DTYPE, SHAPE, WHOLE_SCALE = "of the dtype|is stored as|the dtype", "do not fit", "for all of it"
MISFITS = {
    "wide numbers": (spoilt("rows", weight=("BF16", (8, 32))), "beside it, and the dtype BF16"),
    "scales of integers": (spoilt("rows", weight_scale=("I32", (8, 1))), "scales of the dtype I32"),
    "too few scales": (spoilt("rows", weight_scale=("F32", (7, 1))), SHAPE),
    "too few blocks": (spoilt("blocks", weight_scale_inv=("F32", (2, 7))), SHAPE),
    "blocks without columns": (spoilt("blocks", weight_scale_inv=("F32", (2,))), SHAPE),
    "experts without scales": (spoilt("experts", weight_scale=("F32", (2, 8))), SHAPE),
    "one matrix by column": (
        replace(spoilt("experts by column"), parts=scaled("F8_E4M3", "F32", (8, 32), (1, 32))),
        SHAPE,
    ),
    "a vector": (spoilt("rows", weight=("F8_E4M3", (8,))), "that of no matrix"),
    "nothing": (spoilt("rows", weight=("F8_E4M3", (8, 0))), "that of no matrix"),
    "words of 64 bits": (spoilt("int4", weight_packed=("I64", (8, 4))), "is packed as I64"),
    "exponents of integers": (spoilt("int4", weight_scale=("U8", (8, 2))), "is packed as I32"),
    "part of a group": (spoilt("int4", weight_packed=("I32", (8, 5))), SHAPE),
    "zero points of bytes": (
        spoilt("int4, zero points, groups", **{ZERO_POINT: ("I8", (1, 2))}),
        SHAPE,
    ),
    "too few groups": (spoilt("int4, zero points, groups", **{GROUPS: ("I32", (31,))}), SHAPE),
    "mxfp4 with wide scales": (spoilt("mxfp4", weight_scale=("F32", (8, 1))), DTYPE),
    "mxfp4 with too few scales": (spoilt("mxfp4", weight_scale=("F8_E8M0", (7, 1))), SHAPE),
    "part of an mxfp4 group": (spoilt("mxfp4", weight=("I8", (8, 17))), SHAPE),
    "nvfp4 with exponents": (
        spoilt("nvfp4, multiplied", weight_scale=("F8_E8M0", (8, 2))),
        DTYPE,
    ),
    "nvfp4 in half precision": (
        spoilt("nvfp4, multiplied", **{MULTIPLIED: ("F16", ())}),
        WHOLE_SCALE,
    ),
    "nvfp4 with two scales": (
        spoilt("nvfp4, multiplied", **{MULTIPLIED: ("F32", (2,))}),
        WHOLE_SCALE,
    ),
    "blocks of floats": (spoilt("gpt-oss", weight_blocks=("F32", (3, 8, 1, 16))), DTYPE),
    "blocks of 15": (spoilt("gpt-oss", weight_blocks=("U8", (3, 8, 1, 15))), SHAPE),
    "scales of other groups": (spoilt("gpt-oss", weight_scales=("U8", (3, 8, 2))), SHAPE),
    "GPTQ with exponents": (spoilt("GPTQ", scales=("F8_E8M0", (2, 8))), "is packed as I32"),
    "GPTQ in bytes": (spoilt("GPTQ", qzeros=("U8", (2, 1))), "is packed as I32"),
    "GPTQ with too few zero points": (spoilt("GPTQ", qzeros=("I32", (1, 1))), SHAPE),
    "GPTQ, part of a word": (
        spoilt("GPTQ", qweight=("I32", (4, 9)), scales=("F16", (2, 9))),
        SHAPE,
    ),
    "GPTQ, part of a group": (spoilt("GPTQ", qweight=("I32", (5, 8))), SHAPE),
    "GPTQ, some columns": (
        spoilt("GPTQ v2, sorted", **{GPTQ_GROUPS: ("I32", (31,))}),
        r"g_idx of the shape \[31\]",
    ),
    "AWQ with scales that are turned": (spoilt("AWQ", scales=("F16", (16, 2))), SHAPE),
    "AWQ, part of a word": (
        spoilt("AWQ, a scale a row", qweight=("I32", (12, 1))),
        SHAPE,
    ),
    "nf4 of another size": (spoilt("nf4", weight=("U8", (511, 1))), SHAPE),
    "nf4 in floats": (spoilt("nf4", weight=("F32", (512, 1))), SHAPE),
    "nf4, blocks beyond a row": (
        spoilt("nf4", **four_bits(NF4, block=256) | {ABSMAX: ("F32", (4,))}),
        SHAPE,
    ),
    "nf4, half a byte a block": (
        spoilt("nf4", **four_bits(NF4, block=1) | {ABSMAX: ("F32", (1024,))}),
        SHAPE,
    ),
    "nf4 with bytes for scales": (spoilt("nf4", **{ABSMAX: ("U8", (16,))}), SHAPE),
    "nf4 with too few scales": (spoilt("nf4", **{ABSMAX: ("F32", (15,))}), SHAPE),
    "nested without its map": (spoilt("fp4, nested", **{NESTED[1]: None}), SHAPE),
    "nested with a short map": (spoilt("fp4, nested", **{NESTED[1]: ("F32", (16,))}), SHAPE),
    "nested with too few scales": (spoilt("fp4, nested", **{NESTED[0]: ("F32", (3,))}), SHAPE),
    "nested in floats": (spoilt("fp4, nested", **{ABSMAX: ("F32", (16,))}), SHAPE),
    "int8 in halves": (spoilt("LLM.int8", SCB=("F16", (8,))), "is stored as I8"),
    "int8 with too few rows": (spoilt("LLM.int8", SCB=("F32", (7,))), SHAPE),
    "int8 of experts": (spoilt("LLM.int8", weight=("I8", (1, 8, 32))), SHAPE),
}


@pytest.mark.parametrize("name", MISFITS)
def test_tensors_that_make_no_weight_are_misfits(name: str) -> None:
    case, why = MISFITS[name]
    with pytest.raises(Misfit, match=why):
        read(case)
