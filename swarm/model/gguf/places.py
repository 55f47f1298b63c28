"""Where a model's tensors lie in a GGUF file, under other names and sometimes changed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.gguf.architectures import OUTSIDE, Architecture
from swarm.model.gguf.config import FACTORS
from swarm.model.gguf.metadata import Metadata

LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.(.+)")
QUERY = "attn_q"
KEY = "attn_k"


@dataclass(frozen=True)
class Place:
    """Where one of the model's tensors lies.

    Attributes:
        name: of the tensor in the file.
        shape: of the model's tensor.
        expert: which of the tensor's matrices it is; None for all of the tensor.
        heads: into so many heads its rows are to be reordered; 0 to leave them.
        offset: what the file has added to it.
    """

    name: str
    shape: tuple[int, ...]
    expert: int | None = None
    heads: int = 0
    offset: float = 0.0


def places(
    metadata: Metadata, architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, Place]:
    """Return the places of all tensors, by their names in the model.

    Raises:
        UnsupportedModel: if the file holds a tensor that has no place in the model.
        DamagedModel: if it holds other experts than its metadata says.
    """
    found: dict[str, Place] = {}
    heads = {QUERY: config["num_attention_heads"], KEY: config["num_key_value_heads"]}
    for name, tensor in metadata.tensors.items():
        if name == FACTORS:
            continue
        stem, _, kind = name.rpartition(".")
        layer = LAYER.fullmatch(stem)
        leaf = layer[2] if layer else stem
        names = architecture.layer if layer else OUTSIDE
        prefix = f"model.layers.{layer[1]}." if layer else ""
        if f"{leaf}.{kind}" in names:
            found[prefix + names[f"{leaf}.{kind}"]] = Place(name, tensor.shape)
            continue
        module = names.get(leaf)
        if module is None or kind not in ("weight", "bias"):
            owner = f"no {config['model_type']} that is read from such files"
            why = f"its GGUF file holds the tensor {name[:100]!r}, which {owner} has"
            raise UnsupportedModel(metadata.model, why)
        if "{}" in module:
            experts = config.get("num_experts", config.get("num_local_experts"))
            if len(tensor.shape) != 3 or tensor.shape[0] != experts:
                why = f"holds {name} in the shape {list(tensor.shape)}, which is not that of"
                why = f"{why} {experts:,} experts"
                raise DamagedModel(metadata.model, metadata.file, why)
            for expert in range(tensor.shape[0]):
                place = Place(name, tensor.shape[1:], expert=expert)
                found[f"{prefix}{module.format(expert)}.{kind}"] = place
            continue
        shape = tensor.shape
        if leaf.endswith("gate_inp_shexp") and len(shape) == 1:
            shape = (1, *shape)
        found[f"{prefix}{module}.{kind}"] = Place(
            name,
            shape,
            heads=heads.get(leaf, 0) if architecture.halves else 0,
            offset=architecture.norm_offset if "norm" in leaf and kind == "weight" else 0.0,
        )
    return found
