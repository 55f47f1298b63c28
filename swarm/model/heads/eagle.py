"""EAGLE-1 and EAGLE-2 heads (https://github.com/SafeAILab/EAGLE): one Llama layer.

Both are the same module: EAGLE-2 drafts another tree with it. Features are normed states of the
target, and its own states are predictions of such, which the target's LM head reads as they are.

Tensors: ``fc.weight [hidden, 2 * hidden]``, perhaps ``fc.bias``, and ``layers.N.*`` as in Llama,
where the first layer has no ``input_layernorm``. A copy of the target's embedding is not read.
HASS adds ``embedding_layernorm`` and ``hidden_states_layernorm``. A head with a vocabulary of its
own has in ``d2t [n]`` how far each row's token is from the row's number; the rows are its
``lm_head.weight [n, hidden]``, or else the target's.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from swarm.model.heads.head import FeatureHead, Wiring

WIRING = Wiring(normed_features=True, normed_states=False)
FC = "fc.weight"
LAYER = "layers.0.self_attn.q_proj.weight"
EMBEDDING_NORM = "embedding_layernorm.weight"
FEATURE_NORM = "hidden_states_layernorm.weight"
FIRST_NORM = "layers.0.input_layernorm.weight"
NAMES = {
    FC: FC,
    "fc.bias": "fc.bias",
    EMBEDDING_NORM: "embedding_norm.weight",
    FEATURE_NORM: "feature_norm.weight",
    "lm_head.weight": "lm_head.weight",
}
BIASED = ("q_proj", "k_proj", "v_proj")  # in heads for Qwen2
# Settings of the model that the layers are copied from, which heads do not have.
OTHERS = frozenset(
    (
        "architectures",
        "attention_bias",
        "bos_token_id",
        "eos_token_id",
        "model_type",
        "pad_token_id",
        "tie_word_embeddings",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "vocab_size",
    )
)


def is_eagle(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether tensors of these names and shapes are those of such a head."""
    fc = shapes.get(FC, ())
    return LAYER in shapes and len(fc) == 2 and fc[1] == 2 * fc[0]


def eagle_head(config: Mapping[str, Any], tensors: Collection[str] = ()) -> FeatureHead:
    """Return a head of random weights, which has no LM head.

    Args:
        config: of its layers, as ``config.json`` has it for a Llama model.
        tensors: the names of those that will be loaded; they tell which biases and norms it has.
    """
    settings = {key: value for key, value in config.items() if key not in OTHERS}
    own = LlamaConfig(**settings, vocab_size=1, bos_token_id=None, eos_token_id=None)
    decoder = LlamaModel(own)
    decoder.embed_tokens = nn.Identity()  # the target's is used
    decoder.norm = nn.Identity()
    if FIRST_NORM not in tensors:
        decoder.layers[0].input_layernorm = nn.Identity()
    for index, layer in enumerate(decoder.layers):
        for name in BIASED:
            if f"layers.{index}.self_attn.{name}.bias" in tensors:
                plain = getattr(layer.self_attn, name)
                setattr(layer.self_attn, name, nn.Linear(plain.in_features, plain.out_features))
    hidden = own.hidden_size

    def norm_of(name: str) -> nn.Module | None:
        return LlamaRMSNorm(hidden, own.rms_norm_eps) if name in tensors else None

    return FeatureHead(
        decoder,
        nn.Linear(2 * hidden, hidden, bias="fc.bias" in tensors),
        WIRING,
        embedding_norm=norm_of(EMBEDDING_NORM),
        feature_norm=norm_of(FEATURE_NORM),
    )


def own_name(published: str) -> str | None:
    """Return the name in a `FeatureHead` of a published tensor; None for one that is not read."""
    if published.startswith("layers."):
        return f"decoder.{published}"
    return NAMES.get(published)
