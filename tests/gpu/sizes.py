"""How large the models of the checks are: as users run them, and small enough for tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from helpers.shapes import TINY as TINY_SHAPE
from swarm.model.checkpoint import Checkpoint
from swarm.shapes.catalogue import SHAPES, Shape


@dataclass(frozen=True)
class Sizes:
    """What the checks compute with.

    Attributes:
        width: of the models whose outputs are compared; their rows are whole blocks of 64 weights.
        layers: of the span whose time is measured; its shape is that of ``shape``'s layers.
        inner, heads, kv_heads: of these layers.
        held: tokens that each session holds already while the time of a batch is measured.
        positions: of one session in a batch.
        sessions: that have one position each in a batch.
        steps: of which the median is taken.
        shape: of the head and the draft model.
        new_tokens: of a generation.
        prompts: that are generated from.
    """

    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    held: int
    positions: Sequence[int]
    sessions: Sequence[int]
    steps: int
    shape: Shape
    new_tokens: int
    prompts: int

    def write_span(self, folder: Path) -> Checkpoint:
        """Write some layers of ``shape``, with random weights in bfloat16; open the folder."""
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=64,  # a span of other layers than the first has no embedding
            hidden_size=self.shape.hidden_size,
            num_hidden_layers=self.layers + 1,
            intermediate_size=self.inner,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        )
        config.dtype = torch.bfloat16
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        return Checkpoint.open(str(folder))


LLAMA_8B = SHAPES["llama-3.1-8b"]
REAL = Sizes(
    width=1024,
    layers=4,
    inner=14_336,
    heads=32,
    kv_heads=8,
    held=512,
    positions=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    sessions=(1, 2, 4, 8, 16, 32),
    steps=20,
    shape=LLAMA_8B,
    new_tokens=120,
    prompts=3,
)
TINY = Sizes(
    width=64,
    layers=2,
    inner=96,
    heads=4,
    kv_heads=2,
    held=8,
    positions=(1, 4),
    sessions=(1, 2),
    steps=3,
    shape=TINY_SHAPE,
    new_tokens=12,
    prompts=1,
)
