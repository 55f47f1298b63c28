"""The types of tensors in a GGUF file: how many bytes a block of values takes.

Numbers and sizes are those of ``enum ggml_type`` in ggml.h and of the structures in ggml-common.h
(https://github.com/ggml-org/ggml).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorType:
    """How values lie in a file: in blocks along a row, each with scales of its own.

    Attributes:
        block: the values of a block; 1 for plain numbers.
        block_bytes: the bytes of a block.
        plain: what safetensors calls the dtype of plain numbers; None for packed ones.
    """

    name: str
    block: int
    block_bytes: int
    plain: str | None = None

    def row_bytes(self, columns: int) -> int:
        """Return the bytes of a row, which must be whole blocks."""
        return columns // self.block * self.block_bytes


TYPES = {
    0: TensorType("F32", 1, 4, "F32"),
    1: TensorType("F16", 1, 2, "F16"),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    20: TensorType("IQ4_NL", 32, 18),
    23: TensorType("IQ4_XS", 256, 136),
    30: TensorType("BF16", 1, 2, "BF16"),
    39: TensorType("MXFP4", 32, 17),
}

# Types that are not read: they index codebooks of ggml, hold integers, or are ternary.
UNREAD = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
}
