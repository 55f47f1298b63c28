"""Sizes of published models, and the time that one of their layers takes on a GPU.

Sizes are those of the publishers' config.json. Times are worked out, not measured: there
are no published times of a span of layers by batch size. `Gpu` holds the published figures that
they follow from.
"""

from dataclasses import dataclass
from typing import Literal

# Positions of a batch whose times stand in a table; times between them lie on a straight line.
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DraftKind = Literal["model", "head"]
"""What drafts: a small model, or a head that reads the target's hidden states."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by two speeds, both from a published measurement of a whole model.

    Attributes:
        bytes_per_s: of weights, while single tokens are decoded.
        flop_per_s: while prompts are read.
    """

    name: str
    bytes_per_s: float
    flop_per_s: float


# Published in https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference: llama.cpp, Llama 3 8B
# in F16 on one RTX 4090: 54.84 tokens/s while decoding (tg 512), 9382 while reading (pp 512).
# Worked out: a decoded token reads the 7.504e9 weights of layers and head, 2 bytes each, so
# 823 GB/s, 82 % of the data sheet's 1008 GB/s. A token that is read takes 2 operations for each of
# the 6.979e9 weights of the layers, so 131 TFLOP/s.
RTX_4090 = Gpu("RTX 4090", bytes_per_s=54.84 * 2 * 7.504e9, flop_per_s=9382 * 2 * 6.979e9)


@dataclass(frozen=True)
class Layer:
    """The weights of one layer.

    Attributes:
        numel: read for every batch: attention, and a dense layer's MLP.
        bits: of each of these.
        expert_numel: of one expert; 0 in a dense layer.
        expert_bits: of each of these.
        experts: from which each token takes ``chosen``.
    """

    numel: int
    bits: float = 16.0
    expert_numel: int = 0
    expert_bits: float = 16.0
    experts: int = 1
    chosen: int = 0

    def ms(self, positions: int, gpu: Gpu = RTX_4090) -> float:
        """Return the time of a batch: what its weights take to be read, plus what it computes.

        A batch reads the experts that any of its positions takes. Positions take them
        independently: of E experts, n positions with k each take E (1 - (1 - k/E)^n) on average.
        Keys and values are left out, since texts are short here, and the starts of kernels.
        """
        taken = self.experts * (1.0 - (1.0 - self.chosen / self.experts) ** positions)
        read_bits = self.numel * self.bits + taken * self.expert_numel * self.expert_bits
        operations = 2.0 * positions * (self.numel + self.chosen * self.expert_numel)
        return 1e3 * (read_bits / 8.0 / gpu.bytes_per_s + operations / gpu.flop_per_s)


@dataclass(frozen=True)
class DraftShape:
    """A small model of the Qwen3 class, with the target's vocabulary and a tied head."""

    hidden_size: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int

    def numel(self, target: "Shape") -> int:
        """Return its weights."""
        attention = _attention(self.hidden_size, self.heads, self.kv_heads, self.head_dim)
        layer = attention + _mlp(self.hidden_size, self.inner)
        return self.hidden_size * target.vocab_size + self.layers * layer


@dataclass(frozen=True)
class HeadDraftShape:
    """A head of one layer, of the size that `swarm distill` makes for a target
    (`swarm.distill.trainable_head.shape_for`).

    Attributes:
        heads: of its attention; ``kv_heads`` of its keys and values.
        rows: of the target's LM head that it predicts by.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rows: int = 8192

    def numel(self, target: "Shape") -> int:
        """Return its weights, the rows included."""
        width = target.hidden_size
        attention = _attention(width, self.heads, self.kv_heads, self.head_dim)
        return 2 * width**2 + attention + _mlp(width, width) + self.rows * width


# https://huggingface.co/Qwen/Qwen3-0.6B
DRAFT = DraftShape(hidden_size=1024, layers=28, inner=3072, heads=16, kv_heads=8, head_dim=128)


@dataclass(frozen=True)
class Shape:
    """A model by what its size costs.

    Attributes:
        draft_head: the head that may draft in place of the draft model.
        peers: that share it by default; its layers fit into 24 GB each.
    """

    name: str
    layers: int
    hidden_size: int
    vocab_size: int
    layer: Layer
    draft_head: HeadDraftShape
    peers: int = 4
    draft: DraftShape = DRAFT

    def drafting(self, kind: DraftKind) -> DraftShape | HeadDraftShape:
        """Return the sizes of what drafts."""
        return self.draft_head if kind == "head" else self.draft

    def layer_ms(self) -> tuple[tuple[int, float], ...]:
        """Return the time of one layer for each of `BATCHES`."""
        return _table(self.layer)

    def head_ms(self) -> tuple[tuple[int, float], ...]:
        """Return the time of the LM head in 16 bits on a peer's GPU for each of `BATCHES`."""
        return _table(Layer(self.hidden_size * self.vocab_size))


def _table(layer: Layer) -> tuple[tuple[int, float], ...]:
    return tuple((positions, round(layer.ms(positions), 4)) for positions in BATCHES)


def _attention(width: int, heads: int, kv_heads: int, head_dim: int) -> int:
    """Return the weights of queries, keys, values and the output."""
    return 2 * width * head_dim * (heads + kv_heads)


def _mlp(width: int, inner: int) -> int:
    """Return the weights of a gated MLP, or of one expert."""
    return 3 * width * inner


SHAPES = {
    shape.name: shape
    for shape in (
        # https://huggingface.co/meta-llama/Llama-3.1-8B, in the 16 bits in which it is published.
        Shape(
            "llama-3.1-8b",
            32,
            4096,
            128_256,
            Layer(_attention(4096, 32, 8, 128) + _mlp(4096, 14336)),
            HeadDraftShape(32, 8, 128),
        ),
        # https://huggingface.co/Qwen/Qwen3-8B, in 16 bits.
        Shape(
            "qwen3-8b",
            36,
            4096,
            151_936,
            Layer(_attention(4096, 32, 8, 128) + _mlp(4096, 12288)),
            HeadDraftShape(32, 8, 128),
        ),
        # https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct, in 4 bits with scales (NF4).
        Shape(
            "llama-3.3-70b",
            80,
            8192,
            128_256,
            Layer(_attention(8192, 64, 8, 128) + _mlp(8192, 28672), bits=4.5),
            HeadDraftShape(64, 8, 128),
        ),
        # https://huggingface.co/Qwen/Qwen3-235B-A22B, in 4 bits with scales (NF4).
        Shape(
            "qwen3-235b-a22b",
            94,
            4096,
            151_936,
            Layer(
                _attention(4096, 64, 4, 128),
                bits=4.5,
                expert_numel=_mlp(4096, 1536),
                expert_bits=4.5,
                experts=128,
                chosen=8,
            ),
            HeadDraftShape(32, 2, 128),
            peers=8,
        ),
        # https://huggingface.co/openai/gpt-oss-120b: experts in MXFP4, as they are published.
        Shape(
            "gpt-oss-120b",
            36,
            2880,
            201_088,
            Layer(
                _attention(2880, 64, 8, 64),
                expert_numel=_mlp(2880, 2880),
                expert_bits=4.25,
                experts=128,
                chosen=4,
            ),
            HeadDraftShape(45, 45, 64),
        ),
    )
}
