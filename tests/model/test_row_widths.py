"""What a token takes in the cache of each layer is known before any weight is read."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig

from swarm.model.row_widths import RowWidths


def widths(model_type: str, **settings: Any) -> RowWidths:
    config = AutoConfig.for_model(model_type, **settings)
    checkpoint: Any = SimpleNamespace(name=model_type, config=config, model_config=config)
    return RowWidths.of(checkpoint)


def test_published_sizes() -> None:
    latent = widths("deepseek_v3")
    assert latent.cached == (512 + 64,) * 61
    assert latent.expanded == 128 * (128 + 128)
    sparse = widths("deepseek_v32", num_hidden_layers=4)
    assert sparse.cached == (512 + 64 + 128,) * 4
    plain = widths("llama", num_hidden_layers=2)
    assert plain == RowWidths((2 * 32 * 128,) * 2, 0)


def test_layers_of_one_model_may_differ() -> None:
    config: dict[str, Any] = {
        "num_hidden_layers": 6,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
    }
    sliding, full = 2 * 8 * 256, 2 * 2 * 512
    assert widths("gemma4_text", **config).cached == (*(sliding,) * 5, full)


@pytest.mark.parametrize("model_type", ["qwen3_next", "jamba"])
def test_a_layer_with_a_state_caches_nothing_of_a_token(model_type: str) -> None:
    cached = widths(model_type).cached
    assert 0 in cached
    assert any(cached)
    assert None not in cached
