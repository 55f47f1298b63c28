"""A checkpoint: its configuration, its tensors (read one by one), and its fingerprint.

Files are read on first use: a peer that serves three layers of a hub model downloads the shards of
three layers. Only safetensors files are opened (pickle can run code), and code that comes with a
model is never run.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from math import prod
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.edge import explained
from swarm.model.ending import ending_tokens
from swarm.model.folder import (
    CONFIG_FILE,
    GENERATION_FILE,
    Stored,
    check_sizes,
    name_of,
    path_of,
    read_json,
    token_ids,
)
from swarm.model.gguf.file import is_gguf
from swarm.model.gguf.source import Gguf
from swarm.model.limits import check_config, check_file
from swarm.model.quantization import QUANTIZATIONS, Quantization
from swarm.model.source import CheckpointSource, Folder, Hub
from swarm.model.stored.method import find_method
from swarm.model.stored.packed import PackedTensor
from swarm.model.stored.weight import PackedWeight
from swarm.model.stored.weights import Weights
from swarm.model.wrapping import text_of, whole_of

# 128 bits: no accidental collision, and short enough for every record and handshake.
FINGERPRINT_HEX = 32


class Checkpoint:
    """A model on disk or on the hub.

    Make one with `Checkpoint.open`. Reading is safe from several threads.

    Attributes:
        name: the folder's own name or the hub id, with the quantization's name if there is one.
        config: the configuration of the decoder (of a multimodal model: of its text part).
        model_config: that of the model that gives the logits; `config`, or one that holds it.
        wrapper: the type of the model that the decoder is a part of, such as one with vision; None
            for a decoder alone.
        quantization: how the weights of its layers are stored in memory; None for unquantized.
    """

    def __init__(
        self, name: str, source: CheckpointSource, quantization: Quantization | None = None
    ) -> None:
        self.name = name if quantization is None else f"{name}-{quantization.name}"
        self.quantization = quantization
        self._source = source
        self._raw_config = source.config()
        self._method = find_method(
            name, self._raw_config, source.files, lambda file: read_json(name, source.fetch(file))
        )
        check_sizes(name, self._raw_config)
        check_file(name, self._raw_config)
        with explained(lambda why: _unreadable(name, why)):
            config = source.read_config()
            self.config: PreTrainedConfig = text_of(config)
            self.model_config = whole_of(config)
        self.wrapper: str | None = None if self.config is config else config.model_type
        for each in (self.config, self.model_config):
            if hasattr(each, "quantization_config"):  # or the loader would quantize as it can
                del each.quantization_config
        check_config(name, self.config)

    @classmethod
    def open(cls, model: str, quantization: Quantization | None = None) -> "Checkpoint":
        """Open a local folder, a GGUF file, or a hub id.

        Reads configuration and index, and of a folder or a file the weights' headers. A quantized
        model is another model: it has another name and another fingerprint.

        Raises:
            ModelNotFound: when there is neither.
            DamagedModel: when a file of it is damaged or missing.
            UnsupportedModel: when it cannot be read safely, or its weights are quantized already.
        """
        path = path_of(model)
        if path is None:
            return cls(model, Hub(model), quantization)
        name = name_of(path)
        source = Gguf(name, path) if is_gguf(path) else Folder(name, path)
        return cls(name, source, quantization)

    @property
    def plain_name(self) -> str:
        """The name without the quantization's. It may be told to others: it holds no local path."""
        if self.quantization is None:
            return self.name
        return self.name.removesuffix(f"-{self.quantization.name}")

    @property
    def num_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        return int(self.config.vocab_size)

    @property
    def max_positions(self) -> int | None:
        """Positions the model was made for; None where its configuration sets no limit."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    @cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a text, from all places where publishers name them.

        These are the generation configuration, the model's own, the tokenizer, and the chat
        template.

        Raises:
            DamagedModel: if a file names something else than token ids.
        """
        ends = token_ids(self.name, GENERATION_FILE, self._generation.get("eos_token_id"))
        ends |= token_ids(self.name, CONFIG_FILE, getattr(self.config, "eos_token_id", None))
        # A client without a tokenizer has failed before.
        with contextlib.suppress(DamagedModel):
            ends |= ending_tokens(self.tokenizer())
        return frozenset(token for token in ends if 0 <= token < self.vocab_size)

    @property
    def generation_config(self) -> GenerationConfig:
        """The publisher's recommendations for generating, as transformers reads them."""
        if not self._generation:
            return GenerationConfig.from_model_config(self.config)
        with explained(
            lambda why: DamagedModel(self.name, GENERATION_FILE, f"cannot be read ({why})")
        ):
            return GenerationConfig.from_dict(self._generation)

    @cached_property
    def fingerprint(self) -> str:
        """The same bytes, the same model: a hash as 32 hex digits.

        It covers the configuration and every weight file, and the quantization's form if there is
        one. For a local folder the first use reads all its weights; the result is remembered per
        file.
        """
        return self._fingerprint_of(self.quantization)

    @property
    def siblings(self) -> dict[str, str]:
        """The same weights stored otherwise: fingerprint -> quantization's name, or ``none``."""
        others = [each for each in (None, *QUANTIZATIONS.values()) if each != self.quantization]
        return {self._fingerprint_of(each): each.name if each else "none" for each in others}

    def _fingerprint_of(self, quantization: Quantization | None) -> str:
        if quantization is None:
            return self._plain_fingerprint
        return _digest([self._plain_fingerprint, quantization.form])

    @cached_property
    def _plain_fingerprint(self) -> str:
        config = self._source.published_config()
        files = sorted(set(self._weight_map.values()))
        return _digest([config, [[file, self._source.sha256(file)] for file in files]])

    def tensor_names(self) -> list[str]:
        """Return the names of all weights; one that is stored as several tensors has one name."""
        return sorted(self._weights.files)

    def file_of(self, name: str) -> str:
        """Return the file that holds a weight. Raises KeyError for an unknown name."""
        return self._weights.files[name]

    def stored(self) -> Mapping[str, Stored]:
        """Return how weights lie in their files: all of a folder's, none of a hub model's."""
        return self._weights.stored

    @property
    def is_packed(self) -> bool:
        """Whether its publisher has quantized any of its weights."""
        return self._weights.packed

    @property
    def bits(self) -> str | None:
        """How most packed weights are stored, in words; None without any, or if it is not known."""
        weights: Counter[str] = Counter()
        for each in self.packed().values():
            weights[each.layout.name] += prod(each.wide_shape)
        return weights.most_common(1)[0][0] if weights else None

    def packed(self) -> Mapping[str, PackedWeight]:
        """Return how the weights are stored that are packed, as far as `stored` knows them."""
        return self._weights.outlines

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Read exactly these tensors, in their stored dtypes.

        Raises:
            KeyError: for an unknown name.
        """
        return {name: self.tensor(name) for name in names}

    def tensor(self, name: str) -> torch.Tensor:
        """Read one weight, in its stored bits; of a hub model, fetch its file first.

        One that is stored packed comes as a `PackedTensor`.

        Raises:
            KeyError: for an unknown name.
            DamagedModel: where it cannot be read.
        """
        return self._weights.tensor(name)

    def wide(self, name: str) -> torch.Tensor:
        """Read one weight as plain numbers: in float32 if it is stored packed.

        Raises:
            KeyError, DamagedModel: as `tensor`.
        """
        tensor = self.tensor(name)
        return tensor.widen(torch.float32) if isinstance(tensor, PackedTensor) else tensor

    def _read(self, name: str) -> torch.Tensor:
        return self._source.tensor(self._weight_map[name], name)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer. Raises DamagedModel."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self._source.tokenizer()

    @cached_property
    def _generation(self) -> dict[str, Any]:
        """The content of the generation configuration; empty without one."""
        if GENERATION_FILE not in self._source.files:
            return {}
        return read_json(self.name, self._source.fetch(GENERATION_FILE))

    @cached_property
    def _weights(self) -> Weights:
        source = self._source
        stored = source.stored()
        return Weights(
            self.name, self._method, self._weight_map, stored, self._read, source.packed()
        )

    @cached_property
    def _weight_map(self) -> Mapping[str, str]:
        """Tensor name -> file name."""
        return self._source.weights()


def _digest(facts: list[Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_HEX]


def _unreadable(name: str, why: str) -> UnsupportedModel:
    problem = f"its {CONFIG_FILE} cannot be read by the installed transformers ({why})"
    return UnsupportedModel(name, problem)
