"""A chain of peers computes with a checkpoint's published bits what they mean, and keeps them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, FineGrainedFP8Config, Mxfp4Config

from helpers.local_chain import Chain, assert_equal_logits, tokens, whole_logits
from helpers.models import LAYERS, Architecture
from helpers.published import GPT_OSS, LLAMA4, PUBLISHED, Published, publish
from peers.compute.memory import MemoryNeeds
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import look
from swarm.model.span import Span
from swarm.model.stored import forms
from swarm.model.stored.packed import PackedTensor
from swarm.model.work import Work

SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "moe_intermediate_size": 32}
DENSE = Architecture("llama", SIZES)
# Dense in one layer; experts, of which a token hits two of eight, in the others.
EXPERTS = Architecture(
    "qwen3_moe",
    {**SIZES, "num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [1]},
)
# Experts that are one tensor in the checkpoint, and have biases, clamps and interleaved gates.
INTERLEAVED = Architecture(
    "gpt_oss",
    {
        **SIZES,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
    },
)


# Experts that are one tensor [experts, inputs, outputs], of which each token gets all.
MULTIPLIED_AT_ONCE = Architecture(
    "llama4_text",
    {
        **SIZES,
        "intermediate_size_mlp": 96,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
    },
)


def packed_parameters(span: Span) -> dict[str, PackedTensor]:
    named = span._decoder.named_parameters()
    return {name: each for name, each in named if isinstance(each, PackedTensor)}


@pytest.mark.parametrize(
    ("architecture", "published"),
    [
        *((EXPERTS, each) for each in PUBLISHED.values()),
        (DENSE, PUBLISHED["fp8 blocks"]),
        (DENSE, PUBLISHED["int4"]),
        (INTERLEAVED, GPT_OSS),
        (MULTIPLIED_AT_ONCE, LLAMA4),
    ],
    ids=[*PUBLISHED, "dense fp8", "dense int4", "gpt-oss", "llama4"],
)
def test_two_spans_give_what_the_meant_weights_give(
    architecture: Architecture,
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In chunks, beside a neighbour, and where matrices are widened a few rows at a time."""
    folder, model = publish(architecture, published, tmp_path)
    look(str(folder))
    chain = Chain(Checkpoint.open(str(folder)))
    text, other = tokens(9, seed=1), tokens(6, seed=2)
    session, neighbour = chain.open(), chain.open()
    first = chain.run((session, text[:5]))[0]
    second, beside = chain.run((session, text[5:]), (neighbour, other))
    assert_equal_logits(torch.cat([first, second]), whole_logits(model, text))
    assert_equal_logits(beside, whole_logits(model, other))
    monkeypatch.setattr(forms, "CHUNK", 1)  # as few rows as share a scale
    assert_equal_logits(chain.run((chain.open(), text))[0], whole_logits(model, text))
    for span in chain.spans:
        assert span.packs
        assert packed_parameters(span)


@pytest.mark.parametrize("name", ["fp8 blocks", "int4", "modelopt nvfp4", "gpt-oss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_known_before_anything_is_loaded(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    architecture = INTERLEAVED if name == "gpt-oss" else EXPERTS
    published = GPT_OSS if name == "gpt-oss" else PUBLISHED[name]
    folder, _ = publish(architecture, published, tmp_path)
    checkpoint = Checkpoint.open(str(folder))
    needs = MemoryNeeds.of(checkpoint, dtype, torch.device("cpu"))
    for first, last in ((0, 2), (2, LAYERS)):
        span = Span.load(checkpoint, first, last, dtype=dtype)
        assert span.dtype == dtype
        assert needs.weights(first, last) == pytest.approx(span.nbytes, rel=0.02)
        output = span.forward([_text(span)])[0]
        assert output.dtype == dtype
        assert output.isfinite().all()


def _text(span: Span) -> Work:
    inputs = torch.randn(5, span.hidden_size) if span.first else tokens(5, seed=1)
    return Work.behind(span.new_cache(), inputs)


@pytest.mark.parametrize(
    ("architecture", "published", "widened"),
    [
        (
            EXPERTS,
            PUBLISHED["fp8 blocks"],
            FineGrainedFP8Config(weight_block_size=(16, 16), dequantize=True),
        ),
        (INTERLEAVED, GPT_OSS, Mxfp4Config(dequantize=True)),
    ],
    ids=["fp8", "gpt-oss"],
)
def test_transformers_reads_the_same_from_the_same_files(
    architecture: Architecture, published: Published, widened: Any, tmp_path: Path
) -> None:
    """Where it can on a CPU."""
    if isinstance(widened, FineGrainedFP8Config):
        pytest.importorskip("accelerate", reason="transformers wants it for FP8: 'swarm[quant]'")
    folder, _ = publish(architecture, published, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", quantization_config=widened
    )
    chain = Chain(Checkpoint.open(str(folder)))
    text = tokens(9, seed=1)
    assert_equal_logits(chain.run((chain.open(), text))[0], whole_logits(theirs.eval(), text))
