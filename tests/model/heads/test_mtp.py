"""Layers of further tokens of a real architecture: GLM-4.5, with experts as they are published."""

import torch

from helpers.feature_heads import (
    EPS,
    GLM,
    HIDDEN,
    Reference,
    add_tensors,
    target_tensors,
    weights,
)
from helpers.loopback import WORDS, tokenizer_of
from helpers.models import Architecture
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.heads.loading import load_head

SIZES = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "rms_norm_eps": EPS,
}
TEXT = [5, 9, 40, 7, 33, 21]


def test_a_layer_with_experts_drafts_what_the_library_s_own_layer_says(tmp_path):
    target = tmp_path / "target"
    Architecture("glm4_moe", {**SIZES, "first_k_dense_replace": 1}).save(target)
    tokenizer_of(WORDS).save_pretrained(target)
    alone = {**SIZES, "first_k_dense_replace": 0, "num_hidden_layers": 1}
    model = Architecture("glm4_moe", alone).save(tmp_path / "layer").model
    model.norm = torch.nn.Identity()
    further = {
        name.replace("layers.0.", "layers.4."): tensor
        for name, tensor in target_tensors(tmp_path / "layer").items()
        if ".layers.0." in name
    }
    for name in ("enorm", "hnorm", "shared_head.norm"):
        further[f"model.layers.4.{name}.weight"] = weights(HIDDEN, about=1.0)
    further["model.layers.4.eh_proj.weight"] = weights(HIDDEN, 2 * HIDDEN)
    add_tensors(target, further)

    @torch.inference_mode()
    def run_layer(_tensors, _prefix, x, _positions):
        return model(inputs_embeds=x[None], use_cache=False).last_hidden_state[0]

    checkpoint = Checkpoint.open(str(target))
    options = ComputeOptions(device="cpu", draft_dtype="float32")
    draft = load_head("mtp", checkpoint, checkpoint.tokenizer(), options)
    own = target_tensors(target)
    reference = Reference(GLM, own, own, run_layer)
    outputs = list(torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(3)))
    drafter = draft.drafter(Sampling(), NO_SHAPING, frozenset())
    drafter.answered(TEXT, [Feature(at, (), output) for at, output in enumerate(outputs)])
    line = tuple(TEXT)
    for guess in drafter.draft(TEXT, 3):
        [row] = reference.read(outputs, line)
        assert (guess.logits - row).norm() <= 1e-4 * row.norm()
        line = (*line, guess.token)
