"""Attending to latents themselves gives what expanding them first gives, and costs less."""

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.models import ARCHITECTURES
from swarm.model.attention import PACKED, attend
from swarm.model.checkpoint import Checkpoint
from swarm.model.latent import absorbed, absorbs, attend_to_latents, expanded, hand_on_latents
from swarm.model.span import Span

HEADS, NOPE, ROPE, VALUE, RANK = 4, 8, 4, 6, 10
LATENT = ["deepseek_v2", "deepseek_v3", "glm4_moe_lite", "axk1", "minicpm3", "youtu"]


@pytest.fixture
def module(tmp_path: Path) -> nn.Module:
    model = ARCHITECTURES["deepseek_v3"].save(tmp_path)
    return model.get_submodule("model.layers.0.self_attn")


def of(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attend, the first query to all rows but two."""
    groups = query.shape[1] // keys.shape[0]
    mask = torch.zeros(query.shape[2], keys.shape[1])
    mask[0, 3:5] = float("-inf")
    return attend(query, keys, values, mask.repeat(groups, 1), 0.3)


@pytest.mark.parametrize("count", [1, 3])
def test_attending_to_latents_is_attending_to_what_they_expand_to(
    module: nn.Module, count: int
) -> None:
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(1, HEADS, count, NOPE + ROPE, generator=generator)
    rows = (
        torch.randn(1, 7, RANK, generator=generator),
        torch.randn(1, 7, ROPE, generator=generator),
    )
    with torch.inference_mode():
        keys, values = expanded(module, rows[0][None], rows[1][None])
        assert (keys.shape, values.shape) == ((1, HEADS, 7, NOPE + ROPE), (1, HEADS, 7, VALUE))
        got = absorbed(module, query, rows, of)
        torch.testing.assert_close(got, of(query, keys[0], values[0]))
        torch.testing.assert_close(attend_to_latents(module, query, rows, of), got)


def test_many_queries_expand_the_rows_first(module: nn.Module) -> None:
    # For a row and head, expanding costs 10 * 14 products; attending with absorbed weights costs
    # 24 a query, and else 18.
    assert absorbs(module, 23)
    assert not absorbs(module, 24)
    queries = torch.randn(1, HEADS, 30, NOPE + ROPE)
    rows = (torch.randn(1, 30, RANK), torch.randn(1, 30, ROPE))
    seen: list[int] = []

    def noting(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        seen.append(keys.shape[0])
        return of(query, keys, values)

    with torch.inference_mode():
        many = attend_to_latents(module, queries, rows, noting)
        torch.testing.assert_close(many, absorbed(module, queries, rows, noting))
    assert seen == [HEADS, 1]


def test_weights_that_only_their_layer_multiplies_expand_the_rows(module: nn.Module) -> None:
    class Quantized(nn.Linear):
        pass

    module.kv_b_proj = Quantized(RANK, HEADS * (NOPE + VALUE), bias=False)
    assert not absorbs(module, 1)


def test_other_attention_gets_what_the_model_expands(module: nn.Module) -> None:
    hand_on_latents(module, PACKED)
    latents, turned = torch.randn(1, 1, 3, RANK), torch.randn(1, 1, 3, ROPE)
    with torch.inference_mode():
        assert module.expand_kv(latents, turned)[0].shape == (1, HEADS, 3, NOPE + ROPE)
        module.config._attn_implementation = PACKED
        assert module.expand_kv(latents, turned)[0] is latents


@pytest.mark.parametrize("name", LATENT)
def test_a_session_keeps_the_latents(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path)
    span = Span.load(Checkpoint.open(str(tmp_path)), 0, 2)
    assert span.packs
    assert span.nbytes_per_token == 2 * (RANK + ROPE) * torch.float32.itemsize
