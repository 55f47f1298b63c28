"""EAGLE-3 heads (arXiv 2503.01840) and EAGLE-3.1 (arXiv 2605.09992): outputs of inner layers.

A feature is made of the outputs of some layers of the target; the first layer attends by the
embedding and the feature side by side. Two layouts are published. Tensors, perhaps behind
``model.``::

    SpecForge, SGLang      midlayer.*     eagle_config.eagle_aux_hidden_state_layer_ids
    vLLM's speculators     layers.0.*     eagle_aux_hidden_state_layer_ids

    fc.weight [hidden, taps * target's hidden], norm.weight, lm_head.weight [rows, hidden], d2t
    *.input_layernorm (of the embedding), *.hidden_norm (of the feature), and else as in Llama,
        with self_attn.{q,k,v}_proj [., 2 * hidden]
    input_norm.weight [taps * target's hidden], or fc_norm.N.weight for each tap: before ``fc``

Which outputs: see `tapped_layers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from swarm.model.heads.files import LAYER_CONFIG
from swarm.model.heads.head import FeatureHead, Wiring

MIDLAYER = "midlayer."
FIRST_LAYER = "layers.0."
HIDDEN_NORM = "hidden_norm.weight"
AUX_LAYERS = "eagle_aux_hidden_state_layer_ids"
NOT_OF_LAYERS = (
    "architectures",
    "auto_map",
    "model_type",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


class Eagle3Layer(nn.Module):
    """A decoder layer that reads an embedding and a feature side by side.

    Args:
        layer: whose parts it takes; its query, key and value projections become twice as wide.
        normed_residual: the feature goes on behind its norm; else as it is.
    """

    def __init__(self, layer: Any, hidden: int, norm: nn.Module, *, normed_residual: bool) -> None:
        super().__init__()
        self.self_attn = layer.self_attn
        self.mlp = layer.mlp
        self.input_layernorm = layer.input_layernorm
        self.post_attention_layernorm = layer.post_attention_layernorm
        self.hidden_norm = norm
        self._normed_residual = normed_residual
        for name in ("q_proj", "k_proj", "v_proj"):
            plain = getattr(self.self_attn, name)
            wide = nn.Linear(2 * hidden, plain.out_features, bias=plain.bias is not None)
            setattr(self.self_attn, name, wide)

    def forward(self, hidden_states: Tensor, **how: Any) -> Tensor:
        """Turn ``[batch, n, 2 * hidden]``, embeddings and features, into ``[batch, n, hidden]``."""
        embedded, feature = hidden_states.chunk(2, dim=-1)
        normed = self.hidden_norm(feature)
        residual = normed if self._normed_residual else feature
        joined = torch.cat((self.input_layernorm(embedded), normed), dim=-1)
        attended: Tensor = self.self_attn(hidden_states=joined, **how)[0]
        attended = residual + attended
        output: Tensor = attended + self.mlp(self.post_attention_layernorm(attended))
        return output


class Eagle3Head(FeatureHead):
    """A head whose features are made of several outputs of the target.

    Args:
        fusion: turns outputs ``[n, taps, target's hidden]`` into features ``[n, hidden]``.
    """

    def __init__(self, decoder: Any, fusion: "Fusion", wiring: Wiring, norm: nn.Module) -> None:
        super().__init__(decoder, nn.Identity(), wiring, norm=norm)
        self.fusion = fusion

    def enter(self, outputs: Tensor) -> Tensor:
        """See `FeatureHead.enter`."""
        features: Tensor = self.fusion(outputs)
        return features


class Fusion(nn.Module):
    """One feature of several outputs, each perhaps behind a norm of its own.

    Args:
        width: of all outputs side by side.
        norms: one for each output, one for all of them side by side, or none.
    """

    def __init__(self, width: int, hidden: int, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)
        self.fc = nn.Linear(width, hidden, bias=False)

    def forward(self, outputs: Tensor) -> Tensor:
        if len(self.norms) > 1:
            parts = zip(self.norms, outputs.unbind(-2), strict=True)
            outputs = torch.stack([norm(part) for norm, part in parts], dim=-2)
        joined = outputs.flatten(-2)
        if len(self.norms) == 1:
            joined = self.norms[0](joined)
        feature: Tensor = self.fc(joined)
        return feature


def is_eagle3(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Return whether tensors of these names are those of such a head."""
    return "fc.weight" in shapes and any(
        f"{prefix}{HIDDEN_NORM}" in shapes for prefix in (MIDLAYER, FIRST_LAYER)
    )


def tapped_layers(config: Mapping[str, Any], target_layers: int) -> tuple[int, ...]:
    """Return the layers of the target whose outputs the head reads, counted from 0 on.

    Publishers count differently. In SGLang's layout the numbers name layers. In vLLM's they are
    places in the list of hidden states, of which the first is the embedding: one more. Where a
    configuration names none, both mean the same three layers.

    Raises:
        ValueError: for numbers that name no layers of the target.
    """
    nested = (config.get("eagle_config") or {}).get(AUX_LAYERS)
    if nested:
        layers = tuple(nested)
    elif config.get(AUX_LAYERS):
        layers = tuple(place - 1 for place in config[AUX_LAYERS])
    else:
        layers = (1, target_layers // 2 - 1, target_layers - 4)
    ascending = list(layers) == sorted(set(layers))
    if not ascending or not 0 <= layers[0] <= layers[-1] < target_layers:
        raise ValueError(f"it reads the layers {list(layers)}, and the target has {target_layers}")
    return layers


def eagle3_head(
    config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], target_hidden: int
) -> Eagle3Head:
    """Return a head of random weights, which has no LM head.

    Args:
        config: what its ``config.json`` says.
        shapes: of the tensors that will be loaded, by name; they tell which norms it has.
        target_hidden: the target's width.

    Raises:
        ValueError: for what it cannot be.
    """
    if config.get("parallel_drafting"):
        raise ValueError("it drafts in parallel, from a state of its own for unknown tokens")
    own = dict(config.get(LAYER_CONFIG) or config)
    settings = {key: value for key, value in own.items() if key not in NOT_OF_LAYERS}
    kind = own.get("model_type", "llama")
    if kind not in ("llama", "qwen3"):
        raise ValueError(f"its layer is one of {kind!r}, not of llama or qwen3")
    decoder_config = AutoConfig.for_model(kind, **{**settings, "vocab_size": 1})
    decoder = AutoModel.from_config(decoder_config)
    hidden, eps = int(decoder_config.hidden_size), float(decoder_config.rms_norm_eps)
    decoder.embed_tokens = nn.Identity()  # the target's is used
    decoder.norm = nn.Identity()
    decoder.layers[0] = Eagle3Layer(
        decoder.layers[0],
        hidden,
        LlamaRMSNorm(hidden, eps),
        normed_residual=bool(config.get("norm_before_residual", False)),
    )
    width = shapes["fc.weight"][1]
    taps = width // target_hidden
    if width != taps * target_hidden:
        raise ValueError(f"it reads {width} numbers, and the target's outputs have {target_hidden}")
    norms: list[nn.Module] = [
        LlamaRMSNorm(target_hidden, eps) for name in shapes if name.startswith("fc_norm.")
    ]
    if "input_norm.weight" in shapes:
        norms = [LlamaRMSNorm(width, eps)]
    wiring = Wiring(normed_features=False, normed_states=bool(config.get("norm_output", False)))
    fusion = Fusion(width, hidden, norms)
    return Eagle3Head(decoder, fusion, wiring, LlamaRMSNorm(hidden, eps))


def own_name(published: str) -> str | None:
    """Return where a published tensor lies in an `Eagle3Head`; None for others."""
    name = published.removeprefix("model.")
    if name.startswith(MIDLAYER):
        return f"decoder.{FIRST_LAYER}{name.removeprefix(MIDLAYER)}"
    if name.startswith("layers."):
        return f"decoder.{name}"
    if name.startswith("fc_norm."):
        return f"fusion.norms.{name.removeprefix('fc_norm.')}"
    known = {
        "fc.weight": "fusion.fc.weight",
        "input_norm.weight": "fusion.norms.0.weight",
        "norm.weight": "norm.weight",
        "lm_head.weight": "lm_head.weight",
    }
    return known.get(name)
