"""A norm in one operation is the model's own, or the model keeps its own."""

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.models import ARCHITECTURES
from swarm.model.kernels.fused_norm import FusedNorm, fuse_norms


@pytest.mark.parametrize("name", ["llama_tied", "qwen3", "gemma2", "gpt_oss"])
def test_a_model_computes_the_same_with_all_of_its_norms_fused(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += torch.linspace(0.0, 0.5, len(parameter))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits
        fuse_norms(model)
        logits = model(input_ids=ids, use_cache=False).logits
    norms = [each for each in model.modules() if "norm" in type(each).__name__.lower()]
    assert norms
    assert all(isinstance(each, FusedNorm) for each in norms)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [nn.LayerNorm(16), nn.Linear(16, 16), nn.RMSNorm(16).bfloat16()])
def test_other_modules_stay(norm: nn.Module) -> None:
    model = nn.Sequential(norm)
    fuse_norms(model)
    assert model[0] is norm
