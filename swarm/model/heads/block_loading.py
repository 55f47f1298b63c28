"""A published block head, read and made ready to draft for one target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from swarm.decoding.drafting.blocks import BlockReader
from swarm.errors import UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.edge import explained
from swarm.model.heads.block import MARKOV_IN, MARKOV_OUT, BlockHead, BlockWiring, ContextCache
from swarm.model.heads.embedding import Embedding
from swarm.model.heads.files import LAYER_CONFIG, HeadFiles

SPECULATORS_TYPE = "speculators_model_type"
DEFAULT_SIZE = 16
MAX_BLOCK = 64
# what changes the arithmetic, and is not done here
UNKNOWN_SETTINGS = (
    "selector_rank",
    "input_embedding_scale",
    "output_multiplier",
    "final_logit_softcapping",
)


@dataclass(frozen=True)
class BlockSettings:
    """What a published configuration says.

    Attributes:
        layers: the configuration of its layers.
        taps: the layers of the target whose outputs it reads, counted from 0 on.
    """

    layers: Mapping[str, Any]
    taps: tuple[int, ...]
    wiring: BlockWiring

    @classmethod
    def of(cls, config: Mapping[str, Any], target_layers: int) -> "BlockSettings":
        """Read a ``config.json`` of DFlash, DSpark or speculators.

        In the first two the numbers of ``target_layer_ids`` name layers. Speculators name places in
        the list of hidden states, of which the first is the embedding: one more.

        Raises:
            ValueError: for what it cannot be.
        """
        kind = config.get(SPECULATORS_TYPE)
        nested = {**config, **(config.get("dflash_config") or {})}
        if unknown := [each for each in UNKNOWN_SETTINGS if nested.get(each) not in (None, 1, 1.0)]:
            raise ValueError(f"its setting {unknown[0]} is not known here")
        if nested.get("markov_rank") and nested.get("markov_head_type", "vanilla") != "vanilla":
            raise ValueError(f"its bias is of the kind {nested['markov_head_type']!r}")
        named = config["aux_hidden_state_layer_ids"] if kind else nested["target_layer_ids"]
        taps = tuple(each - 1 for each in named) if kind else tuple(named)
        if list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < target_layers:
            raise ValueError(f"it reads the layers {list(taps)}, the target has {target_layers}")
        architecture = " ".join(config.get("architectures") or ())
        is_dspark = kind == "dspark" or "DSpark" in architecture
        size = int(nested.get("block_size", DEFAULT_SIZE))
        if not 1 < size <= MAX_BLOCK:
            raise ValueError(f"its blocks have {size} tokens")
        causal = nested.get("is_causal", nested.get("causal"))
        wiring = BlockWiring(
            size=size,
            mask_token=int(nested["mask_token_id"]),
            from_anchor=bool(nested.get("sample_from_anchor", is_dspark)),
            causal=bool(causal),
            causal_window=not config.get(
                "sliding_window_non_causal", kind is not None or causal is False
            ),
        )
        return cls(config.get(LAYER_CONFIG) or config, taps, wiring)


def is_block(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Return whether tensors of these names are those of a block head."""
    return {"fc.weight", "hidden_norm.weight", "layers.0.self_attn.q_norm.weight"} <= shapes.keys()


def read_block_head(files: HeadFiles, target: Checkpoint) -> tuple[BlockHead, tuple[int, ...]]:
    """Return a head with the published weights, without its LM head, and the layers that it taps.

    Raises:
        DamagedModel, UnsupportedModel: if it cannot be read, or is not for this target.
    """

    def unfit(why: str) -> UnsupportedModel:
        return UnsupportedModel(files.name, f"its weights do not fit its configuration ({why})")

    with explained(unfit):
        settings = BlockSettings.of(files.config, target.num_layers)
        width = len(settings.taps) * target.hidden_size
        if files.shapes["fc.weight"] != (target.hidden_size, width):
            raise ValueError(f"it does not read {len(settings.taps)} outputs of this target")
        places = {_own_name(each): each for each in files.shapes}
        vocabulary, rank = files.shapes[places[MARKOV_IN]] if MARKOV_IN in places else (0, 0)
        config = _layers(settings.layers)
        with torch.device("meta"):
            head = BlockHead(
                config, settings.wiring, width, markov_rank=rank, vocabulary=vocabulary
            )
        head.rotary_emb = Qwen3RotaryEmbedding(config=config)
        head.load_state_dict(
            {
                name: files.tensor(places[name]).float()
                for name in head.state_dict()
                if name in places
            },
            assign=True,
            strict=False,
        )
        missing = [name for name, tensor in head.named_parameters() if tensor.is_meta]
        if missing:
            raise ValueError(f"it lacks {missing[0]}")
    return head, settings.taps


def give_bias(head: BlockHead, files: HeadFiles, rows: Tensor | None) -> None:
    """Give a head with a bias the rows that its LM head has: those of some tokens, or all."""
    if head.markov_w1 is None:
        return
    published = next(name for name in files.shapes if _own_name(name) == MARKOV_OUT)
    weight = files.tensor(published).float()
    if rows is not None and len(weight) != len(rows):
        weight = weight[rows]
    with torch.device("meta"):
        head.markov_w2 = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    head.markov_w2.weight = nn.Parameter(weight)


@dataclass(frozen=True, eq=False)
class BlockParts:
    """A block head that is ready to draft, shared by all generations of a client."""

    head: BlockHead
    embedding: Embedding

    def reader(self) -> "HeadBlockReader":
        """Return a reader without context."""
        return HeadBlockReader(self)


class HeadBlockReader(BlockReader):
    """A block head, and the context of one generation. Use it from one thread at a time."""

    def __init__(self, parts: BlockParts) -> None:
        self._parts = parts
        self.forget()

    @property
    def known(self) -> int:
        return len(self._parts.embedding)

    @property
    def context(self) -> int:
        return int(self._parts.head.config.max_position_embeddings)

    @property
    def size(self) -> int:
        return self._parts.head.wiring.size

    @property
    def first(self) -> int:
        return 0 if self._parts.head.wiring.from_anchor else 1

    def forget(self) -> None:
        """See `BlockReader.forget`."""
        head = self._parts.head
        self._cache = ContextCache(len(head.layers), head.device)

    def add(self, outputs: Tensor, positions: Sequence[int]) -> None:
        """See `BlockReader.add`."""
        head = self._parts.head
        at = torch.tensor(positions, device=head.device)
        head.add_context(self._cache, outputs.to(head.device, head.dtype), at)

    def read(self, blocks: Sequence[Sequence[int]], anchor: int) -> Tensor:
        """See `BlockReader.read`."""
        head, size = self._parts.head, self.size
        masks = [head.wiring.mask_token] * size
        tokens = [token for block in blocks for token in [*block, *masks][:size]]
        embedded = self._parts.embedding.rows(tokens).to(head.device, head.dtype)
        states: Tensor = head(embedded.view(len(blocks), size, -1), anchor, self._cache)
        return states

    def logits(self, states: Tensor, before: Sequence[int]) -> Tensor:
        """See `BlockReader.logits`."""
        head = self._parts.head
        tokens = torch.tensor(before, device=head.device)
        return head.logits(states, tokens).float().cpu()


def _layers(config: Mapping[str, Any]) -> Qwen3Config:
    kind = config.get("model_type", "qwen3")
    if kind != "qwen3":
        raise ValueError(f"its layers are of {kind!r}, not of qwen3")
    dropped = ("architectures", "auto_map", "pad_token_id", "bos_token_id", "eos_token_id")
    settings = {key: value for key, value in config.items() if key not in dropped}
    return Qwen3Config(**{**settings, "vocab_size": 1})


def _own_name(published: str) -> str:
    """Return where a published tensor lies in a `BlockHead`."""
    for name in (MARKOV_IN, MARKOV_OUT):
        if published.endswith(name):
            return name
    return published
