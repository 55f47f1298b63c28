"""A checkpoint: its configuration, its tensors (read one by one), and its fingerprint.

Nothing is read before it is asked for: a peer that serves three layers of a hub model downloads the shards of three
layers. Only safetensors files are opened (pickle can run code), and code that comes with a model is never run.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import huggingface_hub
import platformdirs
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig

from swarm.errors import ModelNotFound, UnsupportedModel
from swarm.model.quantization import QUANTIZATIONS, Quantization

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
FINGERPRINT_HEX = 32  # 128 bits: no accidental collision, and short enough for every record and greeting
VOLATILE_CONFIG_KEYS = ("_name_or_path", "transformers_version")  # they change with who saved the model, and where
HASH_CHUNK_BYTES = 4 << 20


class Checkpoint:
    """A model on disk or on the hub. Make one with `Checkpoint.open`. Reading is safe from several threads.

    Attributes:
        name: the folder's own name, or the hub id; with that of the quantization, if there is one.
        config: the configuration of the decoder (of a multimodal model: of its text part).
        quantization: how the weights of its layers are stored in memory; None for as they are.
    """

    def __init__(self, name: str, source: "_Folder | _Hub", quantization: Quantization | None = None) -> None:
        self.name = name if quantization is None else f"{name}-{quantization.name}"
        self.quantization = quantization
        self._source = source
        self._lock = threading.Lock()
        self._open_files: dict[str, Any] = {}
        self._raw_config: dict[str, Any] = json.loads(source.fetch(CONFIG_FILE).read_text("utf-8"))
        try:
            config = AutoConfig.from_pretrained(source.fetch(CONFIG_FILE).parent, trust_remote_code=False)
        except (ValueError, KeyError, OSError) as error:
            why = f"its configuration cannot be read by the installed transformers ({_first_line(error)})"
            raise UnsupportedModel(name, why) from error
        self.config: PreTrainedConfig = config.get_text_config(decoder=True)

    @classmethod
    def open(cls, model: str, quantization: Quantization | None = None) -> "Checkpoint":
        """Open a local folder or a hub id; reads configuration and index, no weights.

        Quantized, it is another model: with another name and another fingerprint.

        Raises ModelNotFound when there is neither, and UnsupportedModel when it cannot be read safely.
        """
        path = Path(model).expanduser()
        if path.is_dir():
            return cls(path.resolve().name, _Folder(path.resolve()), quantization)
        if path.is_absolute() or model.startswith((".", "~")):
            raise ModelNotFound(model, "there is no such folder")
        return cls(model, _Hub(model), quantization)

    @property
    def plain_name(self) -> str:
        """The name without that of the quantization. What others are told: where the files are is nobody's business."""
        return self.name if self.quantization is None else self.name.removesuffix(f"-{self.quantization.name}")

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
        return int(limit) if limit else None

    @cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a text: those of the generation configuration, else those of the model's."""
        ids = self._generation.get("eos_token_id", getattr(self.config, "eos_token_id", None))
        return frozenset(() if ids is None else [ids] if isinstance(ids, int) else ids)

    @property
    def generation_config(self) -> GenerationConfig:
        """What the model's makers recommend for generating, as transformers reads it."""
        if self._generation:
            return GenerationConfig.from_dict(self._generation)
        return GenerationConfig.from_model_config(self.config)

    @cached_property
    def fingerprint(self) -> str:
        """Same bytes, same model: a hash over the configuration and every weight file, as 32 hex digits; quantized,
        over that and what the bits mean.

        For a local folder the first use reads all its weights; the result is remembered per file.
        """
        return self._fingerprint_of(self.quantization)

    @property
    def siblings(self) -> dict[str, str]:
        """The same weights stored in the other ways: fingerprint -> name of the quantization, or ``none``."""
        others = [each for each in (None, *QUANTIZATIONS.values()) if each != self.quantization]
        return {self._fingerprint_of(each): each.name if each else "none" for each in others}

    def _fingerprint_of(self, quantization: Quantization | None) -> str:
        return _digest([self._plain_fingerprint, quantization.form]) if quantization else self._plain_fingerprint

    @cached_property
    def _plain_fingerprint(self) -> str:
        config = {key: value for key, value in self._raw_config.items() if key not in VOLATILE_CONFIG_KEYS}
        files = sorted(set(self._weight_map.values()))
        return _digest([config, [[file, self._source.sha256(file)] for file in files]])

    def tensor_names(self) -> list[str]:
        return sorted(self._weight_map)

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Read exactly these tensors, in the dtype they are stored in. Raises KeyError for an unknown name."""
        return {name: self.tensor(name) for name in names}

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor, from a hub model after fetching its file. Raises KeyError for an unknown name."""
        file = self._weight_map[name]
        with self._lock:
            if file not in self._open_files:
                self._open_files[file] = safe_open(self._source.fetch(file), framework="pt", device="cpu")
            tensor: torch.Tensor = self._open_files[file].get_tensor(name)
        return tensor

    def tokenizer(self) -> Any:
        """The model's tokenizer (a transformers tokenizer)."""
        where, options = self._source.tokenizer_location
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)

    @cached_property
    def _generation(self) -> dict[str, Any]:
        """The content of the generation configuration; empty without one."""
        path = self._source.find(GENERATION_FILE)
        generation: dict[str, Any] = json.loads(path.read_text("utf-8")) if path else {}
        return generation

    @cached_property
    def _weight_map(self) -> dict[str, str]:
        """Tensor name -> file name."""
        index = self._source.find(INDEX_FILE)
        if index is not None:
            weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
            for file in weight_map.values():
                if not file.endswith(".safetensors") or Path(file).name != file:
                    raise UnsupportedModel(
                        self.name, f"its index names {file!r}, which is no safetensors file beside it"
                    )
            return weight_map
        weight_map = self._source.unindexed_weights()
        if not weight_map:
            raise UnsupportedModel(self.name, "it has no safetensors weights")
        return weight_map


class _Folder:
    """A checkpoint in a local folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / CONFIG_FILE).is_file():
            raise ModelNotFound(str(path), f"the folder has no {CONFIG_FILE}")
        self.tokenizer_location: tuple[str, dict[str, Any]] = (str(path), {"local_files_only": True})

    def find(self, file: str) -> Path | None:
        path = self.path / file
        return path if path.is_file() else None

    def fetch(self, file: str) -> Path:
        path = self.find(file)
        if path is None:
            raise ModelNotFound(str(self.path), f"the folder has no {file}")
        return path

    def unindexed_weights(self) -> dict[str, str]:
        files = [self.path / SINGLE_FILE] if self.find(SINGLE_FILE) else sorted(self.path.glob("*.safetensors"))
        weights: dict[str, str] = {}
        for file in files:
            with safe_open(file, framework="pt") as opened:
                weights.update(dict.fromkeys(opened.keys(), file.name))
        return weights

    def sha256(self, file: str) -> str:
        return file_sha256(self.fetch(file))


class _Hub:
    """A checkpoint on the Hugging Face hub, pinned to the commit that it had when it was opened."""

    def __init__(self, repo: str) -> None:
        self.repo = repo
        try:
            info = huggingface_hub.HfApi().model_info(repo, files_metadata=True)
        except Exception as error:  # what "no network" raises belongs to an HTTP library that changes with the version
            raise ModelNotFound(repo, f"it is no folder, and the hub says: {_first_line(error)}") from error
        self.revision: str | None = info.sha
        self._sha256 = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()}
        self.tokenizer_location: tuple[str, dict[str, Any]] = (repo, {"revision": info.sha})

    def find(self, file: str) -> Path | None:
        return self.fetch(file) if file in self._sha256 else None

    def fetch(self, file: str) -> Path:
        try:
            return Path(huggingface_hub.hf_hub_download(self.repo, file, revision=self.revision))
        except Exception as error:  # as above
            raise ModelNotFound(self.repo, f"{file} could not be fetched: {_first_line(error)}") from error

    def unindexed_weights(self) -> dict[str, str]:
        if SINGLE_FILE not in self._sha256:
            return {}
        header = huggingface_hub.parse_safetensors_file_metadata(self.repo, SINGLE_FILE, revision=self.revision)
        return dict.fromkeys(header.tensors, SINGLE_FILE)

    def sha256(self, file: str) -> str:
        # Files too small for large-file storage have no hash in the metadata; fetching those costs nothing.
        return self._sha256.get(file) or file_sha256(self.fetch(file))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hex, remembered by (real path, size, modification time) in the cache folder."""
    stat = path.stat()
    key = f"{os.path.realpath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
    known = _read_hashes()
    if key not in known:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
        known[key] = digest.hexdigest()
        _remember_hash(key, known[key])
    return known[key]


def _digest(facts: list[Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_HEX]


def _hashes_path() -> Path:
    return Path(os.environ.get("SWARM_CACHE") or platformdirs.user_cache_dir("swarm")) / "sha256.json"


def _read_hashes() -> dict[str, str]:
    try:
        known = json.loads(_hashes_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember_hash(key: str, digest: str) -> None:
    path = _hashes_path()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**_read_hashes(), key: digest}), "utf-8")
        temporary.replace(path)
    except OSError:
        pass  # a cache that cannot be written costs time, never correctness


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
