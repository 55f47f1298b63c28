"""Whole models are those that transformers reads; packed weights are widened."""

from pathlib import Path

import pytest
import torch

from helpers.local_chain import assert_equal_logits, tokens, whole_logits
from helpers.models import Architecture
from helpers.published import GPT_OSS, PUBLISHED, publish
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.loading import branching_of, load_draft
from swarm.model.stored.packed import PackedTensor

SIZES = {"hidden_size": 32, "intermediate_size": 64}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}


@pytest.mark.parametrize("name", ["fp8 blocks", "int4", "modelopt nvfp4", "gpt-oss"])
def test_a_draft_may_be_published_in_fewer_bits(name: str, tmp_path: Path) -> None:
    published = GPT_OSS if name == "gpt-oss" else PUBLISHED[name]
    kind = ("gpt_oss", {**SIZES, **EXPERTS}) if name == "gpt-oss" else ("llama", SIZES)
    folder, meant = publish(Architecture(*kind), published, tmp_path)
    draft = load_draft(str(folder), ComputeOptions(device="cpu", draft_dtype="float32"))
    assert not any(isinstance(each, PackedTensor) for each in draft.model.parameters())
    assert branching_of(draft) is not None
    assert_equal_logits(whole_logits(draft.model, tokens(7, 1)), whole_logits(meant, tokens(7, 1)))
    assert draft.model.config.__dict__.get("quantization_config") is None
    rounded = load_draft(str(folder), ComputeOptions(device="cpu", draft_dtype="int8"))
    assert rounded.dtype == "int8"
    assert torch.isfinite(whole_logits(rounded.model, tokens(7, 1))).all()
