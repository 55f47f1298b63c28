"""A GGUF file as the source of a checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.folder import Stored, name_of, path_of
from swarm.model.gguf.config import architecture_of, config_of
from swarm.model.gguf.file import GgufFile, is_gguf
from swarm.model.gguf.layout import Blocks, widen
from swarm.model.gguf.places import Place, places
from swarm.model.gguf.tokenizer import make_tokenizer
from swarm.model.hashes import file_sha256
from swarm.model.stored.weight import PackedWeight

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WIDE = torch.bfloat16  # what packed weights are taken for until a dtype is asked for
LAYERS = "model.layers."
WEIGHTS = "model.gguf"  # a file's own name is its owner's choice: it does not change the model


class Gguf:
    """A checkpoint in one GGUF file (or its parts): a `swarm.model.source.CheckpointSource`.

    Its configuration, tokenizer and tensors are given as those of the model from which llama.cpp's
    converter has made the file.
    """

    def __init__(self, name: str, path: Path) -> None:
        """Raises DamagedModel and UnsupportedModel."""
        self._name = name
        self.path = path
        self._file = GgufFile(name, path)
        metadata = self._file.metadata()
        self._config = config_of(metadata, self._file)
        self._places = places(metadata, architecture_of(metadata), self._config)
        self._packed = {
            name: PackedWeight(Blocks(kind), (place.shape[0], place.shape[1]))
            for name, place in self._places.items()
            if (kind := self._file.tensors[place.name].type).plain is None
            and name.startswith(LAYERS)
            and len(place.shape) == 2
            and not place.offset
        }
        self.files = [WEIGHTS]

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def published_config(self) -> dict[str, Any]:
        return {}

    def read_config(self) -> PreTrainedConfig:
        config: PreTrainedConfig = AutoConfig.for_model(**self._config)
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return make_tokenizer(self._file.metadata())

    def fetch(self, file: str) -> Path:
        if file != WEIGHTS:
            raise DamagedModel(self._name, file, "is missing")
        return self.path

    def weights(self) -> dict[str, str]:
        return dict.fromkeys(self._places, WEIGHTS)

    def stored(self) -> dict[str, Stored]:
        """Return how tensors lie, packed ones as if they were plain numbers."""
        return {
            name: Stored(self._file.tensors[place.name].type.plain or "F32", place.shape)
            for name, place in self._places.items()
        }

    def packed(self) -> dict[str, PackedWeight]:
        """Return the matrices of layers that stay packed.

        An embedding is read by rows and a head as a whole: these are widened as they are read.
        """
        return self._packed

    def tensor(self, file: str, name: str) -> Tensor:
        """Read a tensor: in its dtype, or as a `PackedTensor`.

        Raises:
            KeyError: for an unknown name.
            DamagedModel: if it cannot be read.
        """
        place = self._places[name]
        kind = self._file.tensors[place.name].type
        tensor = self._read(place)
        if place.heads:
            tensor = self._in_halves(tensor, place)
        if name in self._packed:
            return self._packed[name].pack({"weight": tensor}, WIDE)
        if kind.plain is None:
            tensor = widen(tensor, kind, torch.float32)
        if place.offset:
            tensor = tensor.float() - place.offset
        return tensor.reshape(place.shape)

    def sha256(self, file: str) -> str:
        hashes = [file_sha256(path) for path in self._file.paths]
        return hashes[0] if len(hashes) == 1 else " ".join(hashes)

    def _read(self, place: Place) -> Tensor:
        """Return a tensor as it lies: plain numbers, or packed ones as bytes [..., row_bytes]."""
        stored = self._file.tensors[place.name]
        shape = stored.shape if place.expert is None else stored.shape[1:]
        content = torch.frombuffer(self._file.read(place.name, place.expert), dtype=torch.uint8)
        if stored.type.plain is not None:
            return content.view(PLAIN[stored.type.plain]).reshape(shape)
        return content.reshape(*shape[:-1], stored.type.row_bytes(shape[-1]))

    def _in_halves(self, tensor: Tensor, place: Place) -> Tensor:
        """Order rows (and biases) for a model that rotates halves of a head, not neighbours.

        Raises:
            UnsupportedModel: if they are not whole heads.
        """
        rows = len(tensor)
        if rows % (2 * place.heads):
            why = f"{place.name} in its GGUF file has {rows} rows for {place.heads} heads"
            raise UnsupportedModel(self._name, why)
        pairs = torch.arange(rows).reshape(place.heads, -1, 2)
        return tensor[pairs.transpose(1, 2).flatten()]


def gguf_of(model: str) -> Gguf | None:
    """Open the GGUF file that a model's name means; return None if it means another source.

    Raises:
        ModelNotFound, DamagedModel, UnsupportedModel: see `path_of` and `Gguf`.
    """
    path = path_of(model)
    return Gguf(name_of(path), path) if path is not None and is_gguf(path) else None
