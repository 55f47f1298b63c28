"""How large states are is known before any weight is read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from helpers.models import ARCHITECTURES, LAYERS
from helpers.recurrent_models import RECURRENT
from swarm.model.anatomy import skeleton, take_apart
from swarm.model.checkpoint import Checkpoint
from swarm.model.recurrent.sizes import state_bytes
from swarm.model.span import Span


def sizes(config: Any, dtype: torch.dtype) -> tuple[int, ...]:
    parts = take_apart(skeleton("model", config), "model", config)
    return state_bytes("model", config, parts, dtype)


@pytest.mark.parametrize(
    "name", ["bailing_hybrid", "falcon_h1", "lfm2", "mamba", "minimax", "recurrent_gemma"]
)
def test_they_are_those_of_a_span(name: str, tmp_path: Path) -> None:
    RECURRENT[name].save(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    span = Span.load(checkpoint, 0, LAYERS, dtype=torch.bfloat16)
    assert sum(sizes(checkpoint.config, torch.bfloat16)) == span.nbytes_of_states > 0


def test_published_sizes() -> None:
    """Qwen3-Next-80B-A3B: three of four layers are linear, with 32 states of 128 x 128 numbers."""
    linear = 32 * 128 * 128 * 4 + (2 * 16 * 128 + 32 * 128) * 4 * 2
    config = AutoConfig.for_model("qwen3_next", num_hidden_layers=8)
    assert sizes(config, torch.bfloat16) == ((linear,) * 3 + (0,)) * 2


def test_models_without_states_have_none(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path)
    config = Checkpoint.open(str(tmp_path)).config
    assert sizes(config, torch.float32) == (0,) * LAYERS
