"""The published form of a head: EAGLE-1's, with a smaller vocabulary.

``model.safetensors`` holds ``fc.weight [hidden, 2 * hidden]``, a ``fc.bias`` of zeros, which some
readers want and others skip, the layer as ``layers.0.*`` without an ``input_layernorm``, and the
vocabulary as EAGLE-3 writes it: ``d2t [rows]``, how far each row's token is from the row's
number, and ``t2d [vocabulary]``, which tokens have a row. The rows themselves are the target's own,
and are not stored. ``token_map.pt`` is the same vocabulary as SGLang's
``--speculative-token-map`` takes it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from swarm.distill.frozen import Frozen
from swarm.distill.trainable_head import HeadShape, TrainableHead

ARCHITECTURE = "LlamaForCausalLMEagle"
WEIGHTS_FILE = "model.safetensors"
TOKEN_MAP_FILE = "token_map.pt"
# By what each of the layer's matrices is multiplied where its input or output changes its unit.
INTO_UNIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUT_OF_UNIT = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Origin:
    """What a head was made from.

    Attributes:
        target: the target's name.
        fingerprint: of the target.
        vocab: tokens that the target has.
    """

    target: str
    fingerprint: str
    vocab: int


def save_head(head: TrainableHead, frozen: Frozen, origin: Origin, folder: Path) -> None:
    """Write a head that has learned."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = frozen.tokens.cpu()
    has_row = torch.zeros(origin.vocab, dtype=torch.bool)
    has_row[tokens] = True
    tensors = {
        **published(head),
        "d2t": tokens - torch.arange(len(tokens)),
        "t2d": has_row,
    }
    save_file(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
    torch.save(tokens.tolist(), folder / TOKEN_MAP_FILE)
    config = json.dumps(_config(head, len(tokens), origin), indent=2)
    (folder / "config.json").write_text(config + "\n", "utf-8")


def published(head: TrainableHead) -> dict[str, Tensor]:
    """Return the weights in the target's units: the scales of `TrainableHead` are folded in."""
    unit = head.feature_scale
    hidden = head.shape.hidden
    tensors: dict[str, Tensor] = {}
    for name, parameter in head.state_dict().items():
        weight = parameter.detach().float().cpu()
        if name == "fc.weight":
            of_embedding, of_feature = weight.split(hidden, 1)
            weight = torch.cat((of_embedding * (unit / head.embedding_scale), of_feature), 1)
        elif any(part in name for part in INTO_UNIT):
            weight = weight / unit
        elif any(part in name for part in OUT_OF_UNIT):
            weight = weight * unit
        tensors[name] = weight.contiguous()
    tensors["fc.bias"] = torch.zeros(hidden)
    return tensors


def _config(head: TrainableHead, rows: int, origin: Origin) -> dict[str, Any]:
    shape: HeadShape = head.shape
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": 1,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        # The norm's input is in the target's units, and so its epsilon.
        "rms_norm_eps": shape.eps * head.feature_scale**2,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.context,
        "vocab_size": origin.vocab,
        "draft_vocab_size": rows,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "target": origin.target,
        "target_fingerprint": origin.fingerprint,
    }
