"""A GGUF file on disk, or the parts that one was split into."""

import mmap
import re
from collections.abc import Mapping
from pathlib import Path

from swarm.errors import DamagedModel
from swarm.model.gguf.header import Header, StoredTensor, Value, parse
from swarm.model.gguf.metadata import Metadata

# llama.cpp's ``gguf-split`` names the parts of a file so.
PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.IGNORECASE)
PART_COUNT = "split.count"
ENDING = ".gguf"


class GgufFile:
    """The tensors of a GGUF file. Nothing of it stays open; any thread may read.

    Attributes:
        paths: of the file, or of all its parts in order.
        tensors: how they lie in their part.
    """

    def __init__(self, name: str, path: Path) -> None:
        """``name`` is the model's. Raises DamagedModel and UnsupportedModel."""
        self.name = name
        self.paths = parts_of(name, path)
        self.tensors: dict[str, StoredTensor] = {}
        self._places: dict[str, Path] = {}
        self._metadata: Mapping[str, Value] | None = None
        for part in self.paths:
            header = _header(name, part)
            if self._metadata is None:
                self._metadata = header.metadata
            for tensor, stored in header.tensors.items():
                if tensor in self.tensors:
                    raise DamagedModel(name, part.name, f"holds {tensor!r}, as another part does")
                self.tensors[tensor] = stored
                self._places[tensor] = part

    def metadata(self) -> Metadata:
        """Return the metadata, with the vocabulary, which is not kept. Raises DamagedModel."""
        first = self.paths[0]
        metadata = self._metadata
        self._metadata = None
        if metadata is None:  # it was asked for before
            metadata = _header(self.name, first).metadata
        return Metadata(self.name, first.name, Header(metadata, self.tensors))

    def read(self, name: str, index: int | None = None) -> bytearray:
        """Read the bytes of a tensor.

        Args:
            index: which part of its first dimension to read; None for all of it.

        Raises:
            DamagedModel: if they cannot be read.
        """
        stored = self.tensors[name]
        path = self._places[name]
        nbytes = stored.nbytes if index is None else stored.nbytes // stored.shape[0]
        content = bytearray(nbytes)
        try:
            with path.open("rb") as file:
                file.seek(stored.offset + (index or 0) * nbytes)
                read = file.readinto(content)
        except OSError as error:
            why = f"cannot be read at {name} ({error.strerror})"
            raise DamagedModel(self.name, path.name, why) from None
        if read != nbytes:
            raise DamagedModel(self.name, path.name, f"ends within {name}")
        return content


def parts_of(name: str, path: Path) -> tuple[Path, ...]:
    """Return the paths of all parts of a file, given that of any one.

    Raises:
        DamagedModel: if one of them is missing, or if its name is that of no part.
    """
    match = PART.fullmatch(path.name)
    if match is None:
        return (path,)
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        why = f"is by its name part {number} of {count}; give it back its own name"
        raise DamagedModel(name, path.name, why)
    names = [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    parts = tuple(path.with_name(each) for each in names)
    for part in parts:
        if not part.is_file():
            raise DamagedModel(name, part.name, "is missing: it is a part of the model")
    return parts


def is_gguf(path: Path) -> bool:
    """Return whether a path is that of a GGUF file: by its name, and no folder has it."""
    return path.name.lower().endswith(ENDING) and not path.is_dir()


def wholes_in(folder: Path) -> list[Path]:
    """Return the GGUF files in a folder, of those in parts the first ones."""
    files = sorted(each for each in folder.iterdir() if is_gguf(each) and each.is_file())
    return [
        each
        for each in files
        if (part := PART.fullmatch(each.name)) is None or int(part["number"]) == 1
    ]


def stem_of(path: Path) -> str:
    """Return the name of a file, or that of the whole of which it is a part, without its ending."""
    match = PART.fullmatch(path.name)
    return match["stem"] if match else path.stem


def _header(name: str, path: Path) -> Header:
    """Parse a file's header. Raises DamagedModel and UnsupportedModel."""
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise DamagedModel(name, path.name, "is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                header = parse(name, path.name, content)
    except OSError as error:
        raise DamagedModel(name, path.name, f"cannot be read ({error.strerror})") from None
    if PART.fullmatch(path.name) is None and _part_count(header.metadata) > 1:
        why = "is one of several parts, and its name does not say which; give it back its own name"
        raise DamagedModel(name, path.name, why)
    return header


def _part_count(metadata: Mapping[str, object]) -> int:
    count = metadata.get(PART_COUNT)
    return count if isinstance(count, int) else 1
