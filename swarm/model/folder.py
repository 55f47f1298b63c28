"""Checks of a checkpoint's files without any heavy library: is it damaged, can it be served?

A folder is checked as soon as it is named, before libraries are imported and before a network is
entered. Only JSON and the headers of safetensors files (https://huggingface.co/docs/safetensors)
are read, both bounded.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model.gguf.config import architecture_of, config_of
from swarm.model.gguf.file import GgufFile, is_gguf, stem_of, wholes_in
from swarm.model.gguf.places import places
from swarm.model.stored.method import find_method

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PICKLED_HEAD = "pytorch_model.bin"  # of a head that reads hidden states: `swarm.model.heads.files`
SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")
MAX_JSON_BYTES = 256 << 20  # the largest tokenizers have some 40 MB
MAX_HEADER_BYTES = 100 << 20  # safetensors' own limit
MAX_DIMENSIONS = 16
MAX_NAMED = 5  # files in a message
PLAIN_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
NARROW_FLOATS = re.compile(r"F[468]_|F4|U?I4")  # values that need scales to be understood
ITEM_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16}
ITEM_BITS |= {"U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64}

# Parts of the names of scales, zero points, packed weights and adapters: GPTQ, AWQ, FP8
# (DeepSeek's, ModelOpt's), compressed-tensors, bitsandbytes, MXFP4, MLX, AQLM, EXL2 and EXL3, LoRA.
EXTRAS = re.compile(
    r"scales?|scale_inv|zeros?|zero_points?|qweight|qzeros|qscales?|packed|g_idx|absmax|quant_map"
    r"|quant_state|SCB|blocks|biases|codes|codebooks?|amax|trellis|lora"
)
ADAPTER = re.compile(r"(.*_)?lora(_.*)?")
COMPLEX = frozenset({"C64", "complex64", "complex128"})
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
UNMERGED = (
    "it holds an adapter beside its weights, and adapters are not read: "
    "merge it into the model first"
)
UNPLAIN = (
    "its weights are quantized in a way that is not read: "
    "give another copy, or the model that it was made of"
)
NO_GGUF = (
    "there is no such file; one on the hub has to be downloaded first, such as by: "
    "hf download REPOSITORY FILE"
)


Place = tuple[int, int]
"""The bytes of a file from the first number to before the second."""


@dataclass(frozen=True)
class Stored:
    """How a tensor lies in its file."""

    dtype: str  # as safetensors calls it
    shape: tuple[int, ...]


def look(model: str, draft: bool = False) -> None:
    """Check a model as far as its folder or its GGUF file shows; a hub id is not looked up.

    Args:
        draft: whether it will only draft: the library loads it whole, also if its publisher has
            quantized it.

    Raises:
        ModelNotFound: if there is no such folder, or no model in it.
        DamagedModel: if a file is damaged or missing.
        UnsupportedModel: if its weights are stored in a way that cannot be served.
    """
    path = path_of(model)
    if path is not None and is_gguf(path):
        file = GgufFile(name_of(path), path)
        metadata = file.metadata()
        places(metadata, architecture_of(metadata), config_of(metadata, file))
    elif path is not None:
        config = read_json(path.name, path / CONFIG_FILE)
        if not draft:
            files = [each.name for each in path.iterdir()]
            find_method(path.name, config, files, lambda file: read_json(path.name, path / file))
        check_sizes(path.name, config)
        token_ids(path.name, CONFIG_FILE, config.get("eos_token_id"))
        if (path / GENERATION_FILE).is_file() and not draft:
            generation = read_json(path.name, path / GENERATION_FILE)
            token_ids(path.name, GENERATION_FILE, generation.get("eos_token_id"))
        if not (draft and config.get("num_hidden_layers") == 1 and is_pickled_head(path)):
            headers(path.name, path)


def is_pickled_head(folder: Path) -> bool:
    """Return whether a folder has no other weights than one pickled file."""
    safe = any(True for _ in folder.glob("*.safetensors"))
    return not safe and (folder / PICKLED_HEAD).is_file()


def path_of(model: str) -> Path | None:
    """Return the folder or the GGUF file that a model's name means; None for a hub id.

    Raises:
        ModelNotFound: if there is no such folder or file, or no model in it.
        UnsupportedModel: for a folder with several GGUF files.
    """
    path = Path(model).expanduser()
    if path.is_file():
        if is_gguf(path):
            return path.absolute()  # a link to it may have another name
        raise ModelNotFound(model, "it is a file")
    if not path.is_dir():
        if is_gguf(path):
            raise ModelNotFound(model, NO_GGUF)
        if path.is_absolute() or model.startswith((".", "~")):
            raise ModelNotFound(model, "there is no such folder")
        return None
    path = path.resolve()
    if (path / CONFIG_FILE).is_file():
        return path
    found = wholes_in(path)
    if not found:
        raise ModelNotFound(str(path), f"the folder has no {CONFIG_FILE}")
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:MAX_NAMED])
        why = f"the folder has {len(found)} GGUF files, which are models of their own ({names})"
        raise UnsupportedModel(str(path), f"{why}: name one of them")
    return found[0]


def name_of(path: Path) -> str:
    """Return the name of a model in a folder or a GGUF file. It holds no path."""
    return stem_of(path) if is_gguf(path) else path.name


def check_sizes(model: str, config: Mapping[str, Any]) -> None:
    """Raise DamagedModel if a configuration gives a size that is no positive integer."""
    for field in SIZES:
        if field in config and not (type(config[field]) is int and config[field] > 0):
            given = str(config[field])[:50]
            why = f"says that {field} is {given}, which is no positive number"
            raise DamagedModel(model, CONFIG_FILE, why)


def check_tensors(
    model: str, names: Iterable[str], stored: Mapping[str, Stored], expected: Collection[str] = ()
) -> None:
    """Raise UnsupportedModel if tensors are not plain weights.

    Args:
        names: of the tensors of the checkpoint.
        stored: how they lie in their files, as far as that is known.
        expected: parts of the model's own names: a tensor that the model itself calls a scale is
            one of its weights.
    """
    for name in names:
        ends = name.split(".")[-2:]
        extra = next((end for end in ends if end not in expected and is_extra(end)), None)
        if extra is not None:
            why = UNMERGED if ADAPTER.fullmatch(extra) else UNPLAIN
            why = f"{why} (its tensor {name} is no part of the model itself)"
            raise UnsupportedModel(model, why)
        if name in stored and not is_plain(ends[-1], stored[name].dtype):
            raise UnsupportedModel(model, unplain(name, stored[name].dtype))


def unplain(name: str, dtype: str) -> str:
    """Return the sentence about a weight of this dtype."""
    if dtype in COMPLEX:
        held = f"its tensor {name} holds complex numbers ({dtype})"
        return f"{held}, and weights that can be served are real ones"
    return f"{UNPLAIN} (its tensor {name} has the dtype {dtype})"


def token_ids(model: str, file: str, value: Any) -> frozenset[int]:
    """Return the ids of a file's eos_token_id: one token, a list of them, or None for none.

    Raises:
        DamagedModel: for anything else.
    """
    if value is None:
        return frozenset()
    ids = value if isinstance(value, list) else [value]
    if not all(type(each) is int for each in ids):
        why = f"says that eos_token_id is {str(value)[:50]}, which is no token or list of them"
        raise DamagedModel(model, file, why)
    return frozenset(ids)


def is_plain(leaf: str, dtype: str) -> bool:
    """Return whether a tensor of this dtype may hold plain weights.

    Tensors that are not weights, such as masks and indices, may be integers.
    """
    return dtype in PLAIN_DTYPES or not (leaf == "weight" or NARROW_FLOATS.match(dtype))


def is_extra(part: str) -> bool:
    """Return whether a part of a tensor's name belongs to quantized weights or to an adapter."""
    words = part.split("_")
    pairs = ("_".join(pair) for pair in pairwise(words))  # of weight_scale_inv: scale_inv, too
    return any(EXTRAS.fullmatch(each) for each in (*words, *pairs))


def read_json(model: str, path: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a checkpoint holds. Raises DamagedModel."""
    if not path.is_file():
        raise DamagedModel(model, path.name, "is missing")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DamagedModel(model, path.name, f"is larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedModel(model, path.name, f"is no JSON ({str(error)[:200]})") from None
    if not isinstance(content, dict):
        raise DamagedModel(model, path.name, "holds no JSON object")
    return content


def weight_map(model: str, index: Path) -> dict[str, str]:
    """Return the file name of every tensor, as an index gives it.

    Raises:
        DamagedModel: if the index has no such map.
        UnsupportedModel: if it names other files than safetensors beside it.
    """
    found = read_json(model, index).get("weight_map")
    is_map = isinstance(found, dict) and all(isinstance(file, str) for file in found.values())
    if not found or not is_map:
        raise DamagedModel(model, index.name, "has no weight_map from tensors to files")
    weights: dict[str, str] = found
    for file in weights.values():
        if not file.endswith(".safetensors") or Path(file).name != file:
            why = f"its index names {file!r}, which is no safetensors file beside it"
            raise UnsupportedModel(model, why)
    return weights


def headers(model: str, folder: Path) -> dict[str, tuple[str, Stored]]:
    """Return every tensor's file, and how it lies there.

    Checks that every file is there and as long as its header says.

    Raises:
        DamagedModel: if a file is damaged or missing.
        UnsupportedModel: where there are no safetensors.
    """
    index = folder / INDEX_FILE
    single = folder / SINGLE_FILE
    # Where there are both, transformers takes the single file, too.
    if index.is_file() and not single.is_file():
        return _indexed(model, folder, weight_map(model, index))
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    weights = {
        name: (file.name, tensor)
        for file in files
        for name, tensor in read_header(model, file).items()
    }
    if not weights:
        pickled = any(True for pattern in PICKLES for _ in folder.glob(pattern))
        how = "; pickled ones are not read, because pickle can run code" if pickled else ""
        raise UnsupportedModel(model, f"it has no safetensors weights{how}")
    return weights


def _indexed(model: str, folder: Path, weights: Mapping[str, str]) -> dict[str, tuple[str, Stored]]:
    found = {file: read_header(model, folder / file) for file in dict.fromkeys(weights.values())}
    stored = in_index(model, weights, found)
    return {name: (file, stored[name]) for name, file in weights.items()}


def in_index(
    model: str, weights: Mapping[str, str], headers: Mapping[str, Mapping[str, Stored]]
) -> dict[str, Stored]:
    """Return how the tensors of an index lie in its files, which have these headers.

    Raises:
        DamagedModel: if a file lacks a tensor.
    """
    for name, file in weights.items():
        if name not in headers[file]:
            why = f"lacks the tensor {name}, which {INDEX_FILE} says is there"
            raise DamagedModel(model, file, why)
    return {name: headers[file][name] for name, file in weights.items()}


def read_header(model: str, path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file, whose length they explain. Raises DamagedModel."""
    return {name: stored for name, (stored, _) in read_places(model, path, path.name).items()}


def read_places(model: str, path: Path, file_name: str) -> dict[str, tuple[Stored, Place]]:
    """Return the tensors of a safetensors file, whose length they explain, and where they lie.

    Args:
        file_name: of the file, for messages.

    Raises:
        DamagedModel: if the header does not say so.
    """
    if not path.is_file():
        raise DamagedModel(model, file_name, "is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise DamagedModel(model, file_name, f"is no whole safetensors file ({size:,} bytes)")
        text = file.read(length)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedModel(model, file_name, "has a header that is no JSON") from None
    if not isinstance(content, dict):
        raise DamagedModel(model, file_name, "has a header that is no JSON object")
    tensors: dict[str, tuple[Stored, Place]] = {}
    begin = 8 + length  # of the tensors
    for name, entry in content.items():
        if name != "__metadata__":
            stored, (start, stop) = _tensor(model, file_name, name, entry)
            tensors[name] = (stored, (begin + start, begin + stop))
    end = begin
    for (start, stop), name in sorted((place, name) for name, (_, place) in tensors.items()):
        if start != end:
            how = "overlaps another" if start < end else "does not begin where another ends"
            why = f"has a header by which the tensor {name[:100]!r} {how}"
            raise DamagedModel(model, file_name, why)
        end = stop
    if end != size:
        why = f"has {size:,} bytes, and its tensors take {end:,}"
        raise DamagedModel(model, file_name, why)
    return tensors


def _tensor(model: str, file: str, name: str, entry: Any) -> tuple[Stored, tuple[int, int]]:
    """Return how a tensor is stored, and where it begins and ends behind the header."""
    try:
        dtype = entry["dtype"]
        shape = tuple(entry["shape"])
        start, stop = entry["data_offsets"]
        sizes = [*shape, start, stop]
        sound = isinstance(dtype, str) and len(shape) <= MAX_DIMENSIONS
        sound = sound and all(type(size) is int and 0 <= size < 1 << 48 for size in sizes)
        sound = sound and start <= stop
    except (TypeError, KeyError, ValueError):
        sound = False
    if sound and dtype in ITEM_BITS:
        bits = ITEM_BITS[dtype]
        for size in shape:
            bits *= size
        sound = bits == 8 * (stop - start)
    if not sound:
        raise DamagedModel(model, file, f"has a header that does not say where {name[:100]!r} lies")
    return Stored(dtype, shape), (start, stop)
