"""Layers that predict further tokens (MTP), as they lie inside the checkpoint of their own target.

There are two layouts. Each has a decoder layer of the target's own class, two norms, a projection
of both inputs and a norm behind the layer:

- DeepSeek-V3, GLM-4.5 and later: ``model.layers.N.*`` behind the last layer N - 1, with ``enorm``,
  ``hnorm``, ``eh_proj`` and ``shared_head.norm``. Copies of the target's embedding and LM head may
  be there; they are not read.
- Qwen3-Next, Qwen3.5: ``mtp.layers.0.*``, with ``mtp.pre_fc_norm_embedding``,
  ``mtp.pre_fc_norm_hidden``, ``mtp.fc`` and ``mtp.norm``.

Of several such layers the first is used, for every token again.
"""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig

from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.heads.head import FeatureHead, Wiring
from swarm.model.partial import build_layer
from swarm.model.rehearsal import rehearsed

# Families that carry the state before the norm on, and norm it for predictions alone. The others
# carry the normed state (vLLM's pull requests 46075 and 47448 tell of both). With the wrong one the
# first token is as likely to be right, and further ones are not.
CARRY_RAW_STATES = re.compile(r"deepseek.*|kimi.*")
FULL_ATTENTION = "full_attention"


@dataclass(frozen=True)
class MtpLayout:
    """Where the parts of such a layer lie: names of modules, ``{N}`` is the number of layers.

    Attributes:
        layer: the prefix of the decoder layer, and of everything else in it.
    """

    layer: str
    embedding_norm: str
    feature_norm: str
    fc: str
    norm: str

    def at(self, layers: int, prefix: str) -> "MtpLayout":
        """Return the same with the names of a model of so many layers.

        Args:
            prefix: before all names, such as that of the language model in a larger one.
        """
        names = {
            key: prefix + value.replace("{N}", str(layers)) for key, value in vars(self).items()
        }
        return MtpLayout(**names)


LAYOUTS = (
    MtpLayout(
        layer="layers.{N}",
        embedding_norm="layers.{N}.enorm",
        feature_norm="layers.{N}.hnorm",
        fc="layers.{N}.eh_proj",
        norm="layers.{N}.shared_head.norm",
    ),
    MtpLayout(
        layer="mtp.layers.0",
        embedding_norm="mtp.pre_fc_norm_embedding",
        feature_norm="mtp.pre_fc_norm_hidden",
        fc="mtp.fc",
        norm="mtp.norm",
    ),
)


def mtp_head(target: Checkpoint) -> FeatureHead:
    """Return the head in the target's checkpoint, without an LM head, in float32.

    Reads only its tensors.

    Raises:
        UnsupportedModel: if there is none, or if it lacks a part.
    """
    layout = find_mtp(target)
    parts = rehearsed(target)
    own = re.escape(layout.layer) + r"\.(.+)"
    others = ("embed_tokens.weight", "shared_head.head.weight")
    besides = (layout.embedding_norm, layout.feature_norm, layout.fc, layout.norm)
    layer = {
        f"{parts.layers}.0.{found[1]}": name
        for name in target.tensor_names()
        if (found := re.fullmatch(own, name))
        and found[1] not in others
        and name.rpartition(".")[0] not in besides
    }
    model = build_layer(target, parts, _one_layer(target), layer)
    decoder = model.get_submodule(parts.decoder)
    first = model.get_submodule(parts.layers)[0]
    width = target.hidden_size

    def norm_like_the_layers(name: str) -> nn.Module:
        norm: nn.Module = copy.deepcopy(first.input_layernorm)
        norm.load_state_dict({"weight": target.wide(f"{name}.weight").float()})
        return norm

    fc = nn.Linear(2 * width, width, bias=False, device="meta")
    fc.load_state_dict({"weight": target.wide(f"{layout.fc}.weight").float()}, assign=True)
    raw = CARRY_RAW_STATES.fullmatch(str(target.config.model_type))
    return FeatureHead(
        decoder,
        fc,
        Wiring(normed_features=True, normed_states=not raw),
        embedding_norm=norm_like_the_layers(layout.embedding_norm),
        feature_norm=norm_like_the_layers(layout.feature_norm),
        norm=norm_like_the_layers(layout.norm),
    )


def find_mtp(target: Checkpoint) -> MtpLayout:
    """Return the layout of the layer that the checkpoint has, and where its parts lie.

    Raises:
        UnsupportedModel: if there is none, or if it lacks a norm.
    """
    names = set(target.tensor_names())
    for layout in LAYOUTS:
        fc = layout.at(target.num_layers, "").fc
        found = _shortest(name for name in names if f".{name}".endswith(f".{fc}.weight"))
        if found is not None:
            complete = layout.at(target.num_layers, found.removesuffix(f"{fc}.weight"))
            norms = (complete.embedding_norm, complete.feature_norm, complete.norm)
            lacking = [each for each in norms if f"{each}.weight" not in names]
            if lacking:
                problem = (
                    f"its layer that predicts further tokens lacks the weights of {lacking[0]}"
                )
                raise UnsupportedModel(target.name, problem)
            return complete
    problem = "its checkpoint has no layer that predicts further tokens, which --draft mtp asks for"
    raise UnsupportedModel(target.name, problem)


def _shortest(names: Iterable[str]) -> str | None:
    return min(names, key=len, default=None)


def _one_layer(target: Checkpoint) -> PreTrainedConfig:
    """Return the configuration of a model whose only layer is of the kind that predicts further
    tokens: with whole attention, and experts if the last of the target's layers has some."""
    config = copy.deepcopy(target.config)
    if getattr(config, "num_mtp_layers", None):
        try:
            config = config.get_mtp_config()
        except ValueError:  # it does not say which kinds these are
            config = copy.deepcopy(target.config)
    config.tie_word_embeddings = False  # it has no LM head
    fields = vars(config)
    fields[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = 1
    lists = (value for key, value in fields.items() if key.endswith("layer_types"))
    for kinds in lists:
        if isinstance(kinds, list) and kinds:
            kinds[:] = [FULL_ATTENTION if FULL_ATTENTION in kinds else kinds[-1]]
    if "first_k_dense_replace" in fields:
        fields["first_k_dense_replace"] = 0
    if "mlp_only_layers" in fields:
        fields["mlp_only_layers"] = []
    return config
