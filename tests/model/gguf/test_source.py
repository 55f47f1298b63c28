"""A chain of two spans from a GGUF file computes what transformers does with the same weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.gguf_files import NAMES, Q4_0, Q4_K, Q8_0, Content, convert
from helpers.local_chain import Chain, assert_equal_logits, tokens, whole_logits
from helpers.models import ARCHITECTURES, EXPERTS, LAYERS, Architecture
from peers.compute.memory import MemoryNeeds
from swarm.model.checkpoint import Checkpoint
from swarm.model.gguf.architectures import ARCHITECTURES as READ
from swarm.model.span import Span

WIDTHS = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
MOE = {"moe_intermediate_size": 32, "mlp_only_layers": []}
MORE: dict[str, dict[str, Any]] = {
    "qwen2": {"use_sliding_window": False},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 32, "norm_topk_prob": False},
    "qwen3_moe": {**MOE, "norm_topk_prob": True},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, "layer_types": None},
    "minimax_m2": {**EXPERTS, "rotary_dim": 8},
    "nemotron": {"partial_rotary_factor": 0.5},
    "stablelm": {"qk_layernorm": False},
    "smollm3": {"no_rope_layer_interval": 4},
    "starcoder2": {"sliding_window": None, "norm_epsilon": 1e-5},
}


def tiny(name: str, **settings: Any) -> Architecture:
    own = ARCHITECTURES.get(name, Architecture(name))
    return replace(own, settings={**own.settings, **WIDTHS, **MORE.get(name, {}), **settings})


def check(content: Content, whole: torch.nn.Module, folder: Path) -> Checkpoint:
    """Compare a chain with the whole: in chunks, beside a neighbour, and after a rollback."""
    checkpoint = Checkpoint.open(str(content.write(folder / "Tiny-Q4.gguf")))
    chain = Chain(checkpoint)
    text, other = tokens(9, seed=1), tokens(6, seed=2)
    session, neighbour = chain.open(), chain.open()
    first = chain.run((session, text[:5]))[0]
    second, beside = chain.run((session, text[5:]), (neighbour, other))
    assert_equal_logits(torch.cat([first, second]), whole_logits(whole, text))
    assert_equal_logits(beside, whole_logits(whole, other))
    return checkpoint


def test_every_architecture_that_is_read_is_tried() -> None:
    assert {each.model_type for each in READ.values()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_is_what_transformers_makes_of_the_same_weights(name: str, tmp_path: Path) -> None:
    content, whole = convert(tiny(name).save(tmp_path / "plain"), Q4_0)
    checkpoint = check(content, whole, tmp_path)
    assert checkpoint.name == "Tiny-Q4"
    assert checkpoint.config.model_type == name
    assert checkpoint.eos_token_ids == {2}


@pytest.mark.parametrize(("kind", "name"), [(Q8_0, "llama"), (Q4_K, "qwen3_moe")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_stay_packed_in_the_memory_that_is_announced(
    kind: int, name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """With the bits of the file, also where a part of it is in 16 bits."""
    wide = {"hidden_size": 256, "intermediate_size": 256, "moe_intermediate_size": 96}
    content, _ = convert(tiny(name, **wide, head_dim=32).save(tmp_path / "plain"), kind)
    checkpoint = Checkpoint.open(str(content.write(tmp_path / "m.gguf")))
    needs = MemoryNeeds.of(checkpoint, dtype, torch.device("cpu"))
    for first, last in ((0, 1), (1, LAYERS)):
        span = Span.load(checkpoint, first, last, dtype=dtype)
        assert needs.weights(first, last) == pytest.approx(span.nbytes, rel=0.02)
    packed = [tensor for tensor in content.tensors.values() if tensor.kind == kind]
    held = sum(each.layout.nbytes(each.shape) for each in checkpoint.packed().values())
    embeddings = [content.tensors[f"{each}.weight"] for each in ("token_embd", "output")]
    assert held == sum(len(each.content) for each in packed if each not in embeddings)


def test_blocks_of_256_give_what_transformers_makes_of_the_same_weights(tmp_path: Path) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 32}
    content, whole = convert(tiny("llama", **wide).save(tmp_path / "plain"), Q4_K)
    check(content, whole, tmp_path)
