"""The files of a published head, from a local folder or the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model.edge import explained
from swarm.model.folder import (
    CONFIG_FILE,
    PICKLED_HEAD,
    is_pickled_head,
    name_of,
    path_of,
    read_json,
)
from swarm.model.gguf.file import is_gguf
from swarm.model.source import CheckpointSource, Folder, Hub

MAX_PICKLED_BYTES = 8 << 30
FEW_LAYERS = 2
MAX_LAYERS = 8  # of a head: its layers are made before its weights are read
LAYER_CONFIG = "transformer_layer_config"  # where speculators' configurations have the layers
# Settings that only heads have.
MARKS = frozenset({"draft_vocab_size", "eagle_config", "dflash_config", "speculators_model_type"})


class HeadFiles:
    """The configuration and the tensors of a head, which are read one by one.

    Early heads are pickled. These are read by an unpickler of torch that makes tensors and runs no
    code (``weights_only``).

    Attributes:
        name: the folder's own name or the hub id.
        config: what its ``config.json`` says.
        shapes: of its tensors, by name; a leading ``model.`` is left out.
    """

    def __init__(self, name: str, config: dict[str, Any], tensors: "_Tensors") -> None:
        self.name = name
        self.config = config
        self._tensors = tensors
        self._names = {each.removeprefix("model."): each for each in tensors.shapes}
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tensors.shapes[each] for name, each in self._names.items()
        }

    @classmethod
    def open(cls, model: str) -> "HeadFiles":
        """Open a local folder or a hub id.

        Raises:
            ModelNotFound, DamagedModel, UnsupportedModel: see `Checkpoint.open`.
        """
        path = path_of(model)
        if path is None:
            hub = Hub(model)
            config = read_json(model, hub.fetch(CONFIG_FILE))
            pickled = PICKLED_HEAD in hub.files and not any(map(_is_safe, hub.files))
            tensors = _Pickled(model, hub.fetch(PICKLED_HEAD)) if pickled else _Safe(model, hub)
            return cls(model, config, tensors)
        if is_gguf(path):
            raise UnsupportedModel(name_of(path), "heads are not read from GGUF files")
        config = read_json(path.name, path / CONFIG_FILE)
        if is_pickled_head(path):
            return cls(path.name, config, _Pickled(path.name, path / PICKLED_HEAD))
        return cls(path.name, config, _Safe(path.name, Folder(path.name, path)))

    @classmethod
    def find(cls, model: str) -> "HeadFiles | None":
        """Open a model if it may be a head: it has few layers, or says so.

        A model that is not found is none: loading it as another kind of draft says why.

        Raises:
            DamagedModel, UnsupportedModel: see `Checkpoint.open`.
        """
        try:
            path = path_of(model)
            if path is not None and is_gguf(path):
                return None
            place = Hub(model).fetch(CONFIG_FILE) if path is None else path / CONFIG_FILE
        except ModelNotFound:
            return None
        config = read_json(model, place)
        layers = config.get("num_hidden_layers")
        few = type(layers) is int and layers <= FEW_LAYERS
        if not few and MARKS.isdisjoint(config):
            return None
        files = cls.open(model)
        _check_layers(files.name, config)
        return files

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, memory-mapped where it can be. Raises KeyError and DamagedModel."""
        return self._tensors.tensor(self._names[name])


def _check_layers(name: str, config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for a configuration with more layers than a head has."""
    inner = config.get(LAYER_CONFIG)
    for each in (config, inner if isinstance(inner, dict) else {}):
        layers = each.get("num_hidden_layers", 1)
        if type(layers) is not int or not 1 <= layers <= MAX_LAYERS:
            why = f"it says that it has {str(layers)[:20]} layers, and a head has 1 to {MAX_LAYERS}"
            raise UnsupportedModel(name, why)


class _Tensors(Protocol):
    """The tensors of a head. Attributes: ``shapes``, of all of them, by name."""

    shapes: Mapping[str, tuple[int, ...]]

    def tensor(self, name: str) -> Tensor: ...


class _Safe:
    def __init__(self, name: str, source: CheckpointSource) -> None:
        self._name = name
        self._source = source
        self._files = source.weights()
        stored = source.stored()
        if not stored:
            raise UnsupportedModel(name, "its weights are in several files, and a head has one")
        self.shapes: Mapping[str, tuple[int, ...]] = {
            each: stored[each].shape for each in self._files
        }

    def tensor(self, name: str) -> Tensor:
        file = self._files[name]
        path = self._source.fetch(file)
        with (
            explained(lambda why: DamagedModel(self._name, file, f"cannot be read ({why})")),
            safe_open(path, framework="pt", device="cpu") as opened,
        ):
            tensor: Tensor = opened.get_tensor(name)
        return tensor


class _Pickled:
    def __init__(self, name: str, path: Path) -> None:
        if path.stat().st_size > MAX_PICKLED_BYTES:
            most = f"{MAX_PICKLED_BYTES >> 30} GiB"
            raise UnsupportedModel(name, f"its {path.name} is larger than {most}")

        def unreadable(why: str) -> DamagedModel:
            return DamagedModel(name, path.name, f"holds more than tensors, or is damaged ({why})")

        with explained(unreadable):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            tensors = {str(key): value for key, value in content.items()}
            self.shapes: Mapping[str, tuple[int, ...]] = {
                key: tuple(value.shape) for key, value in tensors.items()
            }
        self._tensors: dict[str, Tensor] = tensors

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


def _is_safe(file: str) -> bool:
    return file.endswith(".safetensors")
