"""Where a checkpoint's files come from: a local folder, or the Hugging Face hub."""

import hashlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import huggingface_hub
import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model.edge import explained, reason
from swarm.model.folder import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    Stored,
    headers,
    in_index,
    read_header,
    read_json,
    weight_map,
)
from swarm.model.gguf.file import is_gguf
from swarm.model.hashes import cache_folder, file_sha256
from swarm.model.hub.ranges import NoRanges, RemoteFile
from swarm.model.hub.shard import HubShard
from swarm.model.stored.weight import PackedWeight
from swarm.model.tokenizer import read_tokenizer

HUB_TIMEOUT_S = 10.0
# A weight file that is not larger is fetched as a whole, into the cache of the hub's library.
WHOLE_BYTES = 64 << 20
HEADERS_AT_ONCE = 8  # of weight files
# Values that depend on where the model was saved, and with which version.
VOLATILE_CONFIG_KEYS = ("_name_or_path", "transformers_version")

log = logging.getLogger(__name__)


def check_on_hub(repo: str) -> None:
    """Raise ModelNotFound if the hub says that it has no such model.

    Where the hub cannot be asked, nothing is raised: the model may lie in the hub's cache.
    """
    try:
        huggingface_hub.HfApi().model_info(repo, timeout=HUB_TIMEOUT_S)
    except GatedRepoError:  # it is there; whether we may read it, loading tells
        pass
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(repo, f"it is no folder, and the hub says: {reason(error)}") from error
    except Exception:  # of the connection, by a library that changes with its versions
        log.debug("the hub cannot be asked for %s", repo, exc_info=True)


class CheckpointSource(Protocol):
    """The files of one checkpoint."""

    @property
    def files(self) -> list[str]:
        """The names of all files."""
        ...

    def config(self) -> dict[str, Any]:
        """Return the content of the model's config.json. Raises DamagedModel and ModelNotFound."""
        ...

    def published_config(self) -> dict[str, Any]:
        """Return what makes the model besides its weights: empty where their file says it all."""
        ...

    def read_config(self) -> PreTrainedConfig:
        """Return the configuration as transformers reads it, which may raise any exception."""
        ...

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer. Raises DamagedModel."""
        ...

    def fetch(self, file: str) -> Path:
        """Return the path of a file in a local folder. Raises ModelNotFound."""
        ...

    def weights(self) -> Mapping[str, str]:
        """Return every tensor's file. Raises DamagedModel and UnsupportedModel."""
        ...

    def stored(self) -> Mapping[str, Stored]:
        """Return how tensors lie in their files, as far as that is known without a fetch."""
        ...

    def packed(self) -> Mapping[str, PackedWeight]:
        """Return the weights that are packed in one tensor, which `tensor` returns packed."""
        ...

    def tensor(self, file: str, name: str) -> torch.Tensor:
        """Read a tensor of a file, in its stored dtype; any thread may. Raises DamagedModel."""
        ...

    def sha256(self, file: str) -> str:
        """Return a file's hash as hex."""
        ...


class SafetensorsFiles(ABC):
    """A checkpoint as on the hub: JSON files, and weights in safetensors files.

    Args:
        name: of the model, for messages.
        tokenizer: where transformers finds the tokenizer, and the keyword arguments to read it.
    """

    def __init__(self, name: str, tokenizer: tuple[str, dict[str, Any]]) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._open_files: dict[str, Any] = {}

    @abstractmethod
    def fetch(self, file: str) -> Path:
        """Return the path of a file in a local folder. Raises ModelNotFound and DamagedModel."""

    def _weight_file(self, file: str) -> Path:
        """Return the path of a file in which the tensors that were asked for can be read."""
        return self.fetch(file)

    def config(self) -> dict[str, Any]:
        return read_json(self._name, self.fetch(CONFIG_FILE))

    def published_config(self) -> dict[str, Any]:
        config = self.config()
        return {key: value for key, value in config.items() if key not in VOLATILE_CONFIG_KEYS}

    def read_config(self) -> PreTrainedConfig:
        folder = self.fetch(CONFIG_FILE).parent
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        where, options = self._tokenizer
        return read_tokenizer(self._name, where, **options)

    def packed(self) -> Mapping[str, PackedWeight]:
        return {}

    def tensor(self, file: str, name: str) -> torch.Tensor:
        with self._lock:
            if file not in self._open_files:
                path = self._weight_file(file)
                with explained(
                    lambda why: DamagedModel(self._name, file, f"cannot be opened ({why})")
                ):
                    self._open_files[file] = safe_open(path, framework="pt", device="cpu")
            with explained(
                lambda why: DamagedModel(self._name, file, f"cannot be read at {name} ({why})")
            ):
                tensor: torch.Tensor = self._open_files[file].get_tensor(name)
        return tensor


class Folder(SafetensorsFiles):
    """A checkpoint in a local folder. It checks that all weight files are there and whole."""

    def __init__(self, name: str, path: Path) -> None:
        """Raises DamagedModel and UnsupportedModel."""
        super().__init__(name, (str(path), {"local_files_only": True}))
        self.path = path
        self._tensors = headers(name, path)
        self.files = [each.name for each in path.iterdir() if each.is_file()]

    def fetch(self, file: str) -> Path:
        path = self.path / file
        if not path.is_file():
            raise DamagedModel(self._name, file, "is missing")
        return path

    def weights(self) -> dict[str, str]:
        return {name: file for name, (file, _) in self._tensors.items()}

    def stored(self) -> dict[str, Stored]:
        return {name: stored for name, (_, stored) in self._tensors.items()}

    def sha256(self, file: str) -> str:
        return file_sha256(self.fetch(file))


class Hub(SafetensorsFiles):
    """A checkpoint on the Hugging Face hub, pinned to its commit at the time of opening.

    Of large weight files, only headers and needed tensors are fetched; what lies in the hub's cache
    is taken from there.
    """

    def __init__(self, repo: str) -> None:
        """Raises ModelNotFound."""

        def unknown(why: str) -> ModelNotFound:
            return ModelNotFound(repo, f"it is no folder, and the hub says: {why}")

        with explained(unknown):
            info = huggingface_hub.HfApi().model_info(repo, files_metadata=True)
        super().__init__(repo, (repo, {"revision": info.sha}))
        self._repo = repo
        self._revision: str | None = info.sha
        siblings = info.siblings or ()
        self._sha256 = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in siblings}
        self._sizes = {file.rfilename: file.size for file in siblings}
        self.files = list(self._sha256)
        if CONFIG_FILE not in self.files:
            self._check_form()

    def fetch(self, file: str) -> Path:
        with self._explained(file):
            return Path(huggingface_hub.hf_hub_download(self._repo, file, revision=self._revision))

    def _check_form(self) -> None:
        """Raise UnsupportedModel for a repository that holds GGUF files alone."""
        found = [file for file in self.files if is_gguf(Path(file))]
        if found:
            why = f"it holds GGUF files: download one and give its path (hf download {self._repo}"
            raise UnsupportedModel(self._repo, f"{why} {found[0]})")

    def weights(self) -> dict[str, str]:
        if SINGLE_FILE not in self._sha256 and INDEX_FILE in self._sha256:
            return self._index
        return dict.fromkeys(self.stored(), SINGLE_FILE)

    def stored(self) -> Mapping[str, Stored]:
        """Raises ModelNotFound, DamagedModel and UnsupportedModel."""
        return self._stored

    def tensor(self, file: str, name: str) -> torch.Tensor:
        shard = self._shards.get(file)
        if shard is not None and (self._sizes[file] or 0) > WHOLE_BYTES:
            with self._explained(file):
                try:
                    if shard.fetch(name):
                        with self._lock:
                            self._open_files.pop(file, None)  # which has not seen the new bytes
                except NoRanges:
                    self._shards[file] = None
        return super().tensor(file, name)

    def sha256(self, file: str) -> str:
        # Files too small for large-file storage have no hash in the metadata; they are fetched.
        return self._sha256.get(file) or file_sha256(self.fetch(file))

    def _weight_file(self, file: str) -> Path:
        shard = self._shards.get(file)
        if shard is None or (self._sizes[file] or 0) <= WHOLE_BYTES:
            return self.fetch(file)
        return shard.path

    @cached_property
    def _index(self) -> dict[str, str]:
        return weight_map(self._repo, self.fetch(INDEX_FILE))

    @cached_property
    def _shards(self) -> dict[str, HubShard | None]:
        """The weight files of which parts can be fetched; None for those that are here already."""
        if SINGLE_FILE in self._sha256:
            files = [SINGLE_FILE]
        elif INDEX_FILE in self._sha256:
            files = sorted(set(self._index.values()))
        else:
            raise UnsupportedModel(self._repo, "it has no safetensors weights")
        return {file: self._shard(file) for file in files}

    def _shard(self, file: str) -> HubShard | None:
        size = self._sizes.get(file)
        cached = huggingface_hub.try_to_load_from_cache(self._repo, file, revision=self._revision)
        if size is None or isinstance(cached, str):
            return None
        place = f"{self._repo}/{file}@{self._revision}".encode()
        key = self._sha256.get(file) or hashlib.sha256(place).hexdigest()
        path = cache_folder() / "shards" / f"{key}.safetensors"
        return HubShard(self._repo, RemoteFile(self._repo, file, self._revision, size), path)

    @cached_property
    def _stored(self) -> dict[str, Stored]:
        shards = self._shards
        with ThreadPoolExecutor(min(HEADERS_AT_ONCE, len(shards))) as pool:
            headers = dict(zip(shards, pool.map(self._header, shards), strict=True))
        if SINGLE_FILE in shards:
            return headers[SINGLE_FILE]
        return in_index(self._repo, self._index, headers)

    def _header(self, file: str) -> dict[str, Stored]:
        shard = self._shards[file]
        if shard is not None:
            with self._explained(file):
                try:
                    return shard.stored()
                except NoRanges:
                    self._shards[file] = None
        return read_header(self._repo, self.fetch(file))

    def _explained(self, file: str) -> AbstractContextManager[None]:
        return explained(
            lambda why: ModelNotFound(self._repo, f"{file} could not be fetched: {why}")
        )
