"""Where a checkpoint's files come from: a local folder, or the Hugging Face hub."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
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
    read_json,
    weight_map,
)
from swarm.model.gguf.file import is_gguf
from swarm.model.hashes import file_sha256
from swarm.model.stored.weight import PackedWeight
from swarm.model.tokenizer import read_tokenizer

HUB_TIMEOUT_S = 10.0
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
                path = self.fetch(file)
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
    """A checkpoint on the Hugging Face hub, pinned to its commit at the time of opening."""

    def __init__(self, repo: str) -> None:
        """Raises ModelNotFound."""

        def unknown(why: str) -> ModelNotFound:
            return ModelNotFound(repo, f"it is no folder, and the hub says: {why}")

        with explained(unknown):
            info = huggingface_hub.HfApi().model_info(repo, files_metadata=True)
        super().__init__(repo, (repo, {"revision": info.sha}))
        self._repo = repo
        self._revision: str | None = info.sha
        self._stored: dict[str, Stored] | None = None
        self._sha256 = {
            file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()
        }
        self.files = list(self._sha256)
        if CONFIG_FILE not in self.files:
            self._check_form()

    def fetch(self, file: str) -> Path:
        def unfetched(why: str) -> ModelNotFound:
            return ModelNotFound(self._repo, f"{file} could not be fetched: {why}")

        with explained(unfetched):
            return Path(huggingface_hub.hf_hub_download(self._repo, file, revision=self._revision))

    def _check_form(self) -> None:
        """Raise UnsupportedModel for a repository that holds GGUF files alone."""
        found = [file for file in self.files if is_gguf(Path(file))]
        if found:
            why = f"it holds GGUF files: download one and give its path (hf download {self._repo}"
            raise UnsupportedModel(self._repo, f"{why} {found[0]})")

    def weights(self) -> dict[str, str]:
        if SINGLE_FILE not in self._sha256 and INDEX_FILE in self._sha256:
            return weight_map(self._repo, self.fetch(INDEX_FILE))
        return dict.fromkeys(self.stored(), SINGLE_FILE)

    def stored(self) -> Mapping[str, Stored]:
        """Raises DamagedModel and UnsupportedModel."""
        if SINGLE_FILE not in self._sha256 and INDEX_FILE in self._sha256:
            return {}  # one request for each file would tell
        if self._stored is None:
            self._stored = self._header()
        return self._stored

    def _header(self) -> dict[str, Stored]:
        if SINGLE_FILE not in self._sha256:
            raise UnsupportedModel(self._repo, "it has no safetensors weights")

        def unreadable(why: str) -> DamagedModel:
            problem = f"has no header that can be read ({why})"
            return DamagedModel(self._repo, SINGLE_FILE, problem)

        with explained(unreadable):
            header = huggingface_hub.parse_safetensors_file_metadata(
                self._repo, SINGLE_FILE, revision=self._revision
            )
            return {
                name: Stored(tensor.dtype, tuple(tensor.shape))
                for name, tensor in header.tensors.items()
            }

    def sha256(self, file: str) -> str:
        # Files too small for large-file storage have no hash in the metadata; they are fetched.
        return self._sha256.get(file) or file_sha256(self.fetch(file))
