"""The header of a GGUF file: its metadata, and the table of its tensors.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
A file comes from a stranger: every count, length and offset in it is checked before it is used, and
nothing is allocated that the file is too short to fill.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.gguf.types import TYPES, UNREAD, TensorType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT_KEY = "general.alignment"
ALIGNMENT = 32  # where the file names none
MAX_ALIGNMENT = 1 << 20
MAX_HEADER_BYTES = 256 << 20  # those with the largest vocabularies have some 10 MB
MAX_KEYS = 1 << 12
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1  # the format's own limit
MAX_NAME_BYTES = 256
MAX_TEXT_BYTES = 1 << 24
MAX_ELEMENTS = 1 << 22  # of all arrays: tokens, their merges and kinds; each becomes an object
MAX_DIMENSIONS = 4  # ggml's own limit
MAX_SIZE = 1 << 40  # of a dimension, and of an offset
STRING = 8
ARRAY = 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
NUMBERS[12] = "d"

Buffer: TypeAlias = bytes | mmap.mmap


@dataclass(frozen=True)
class Texts:
    """An array of strings, which are decoded when they are needed: a peer needs no vocabulary."""

    encoded: tuple[bytes, ...]


Value: TypeAlias = int | float | bool | str | list[int | float | bool] | Texts


@dataclass(frozen=True)
class StoredTensor:
    """How a tensor lies in a file.

    Attributes:
        shape: as torch orders it: the last dimension lies together.
        offset: from the start of the file, in bytes.
        nbytes: how many bytes it takes.
    """

    type: TensorType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What is known of a file before a weight is read."""

    metadata: Mapping[str, Value]
    tensors: Mapping[str, StoredTensor]


def parse(model: str, file: str, buffer: Buffer) -> Header:
    """Parse the header of a file, given its whole content (or a map of it).

    Args:
        model, file: names for messages.

    Raises:
        DamagedModel: if it is no whole GGUF file.
        UnsupportedModel: if a tensor has a type that is not read.
    """
    cursor = _Cursor(model, file, buffer)
    if cursor.take(len(MAGIC)) != MAGIC:
        cursor.broken("is no GGUF file")
    version = cursor.number("I")
    if version not in VERSIONS:
        cursor.broken(f"has the version {version} of the format, and versions 2 and 3 are read")
    tensors = cursor.count("Q", MAX_TENSORS, "tensors")
    keys = cursor.count("Q", MAX_KEYS, "keys")
    metadata: dict[str, Value] = {}
    for _ in range(keys):
        key = cursor.text(MAX_KEY_BYTES)
        if key in metadata:
            cursor.broken(f"has the key {key[:100]!r} twice")
        metadata[key] = cursor.value(int(cursor.number("I")))
    entries = [_entry(cursor) for _ in range(tensors)]
    alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
    sound = type(alignment) is int and 8 <= alignment <= MAX_ALIGNMENT and alignment % 8 == 0
    if not (sound and isinstance(alignment, int)):
        cursor.broken(f"says that {ALIGNMENT_KEY} is {repr(alignment)[:50]}")
    return Header(metadata, _places(cursor, entries, alignment))


class _Cursor:
    """Reads a file from its start; raises DamagedModel where it ends too early."""

    def __init__(self, model: str, file: str, buffer: Buffer) -> None:
        self.model = model
        self.file = file
        self.size = len(buffer)
        self.at = 0
        self._elements = 0
        self._buffer = buffer
        self._end = min(self.size, MAX_HEADER_BYTES)

    def broken(self, why: str) -> NoReturn:
        raise DamagedModel(self.model, self.file, why)

    def take(self, nbytes: int) -> bytes:
        start = self.at
        self.at += nbytes
        if self.at > self._end:
            if self.size > MAX_HEADER_BYTES:
                self.broken(f"has a header of more than {MAX_HEADER_BYTES >> 20} MiB")
            self.broken(f"ends within its header ({self.size:,} bytes)")
        return bytes(self._buffer[start : self.at])

    def number(self, code: str) -> int | float | bool:
        number: int | float | bool = struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]
        return number

    def count(self, code: str, most: int, what: str) -> int:
        count = int(self.number(code))
        if count > most:
            self.broken(f"says that it holds {count:,} {what}, and more than {most:,} are not read")
        return count

    def encoded(self, most: int) -> bytes:
        return self.take(self.count("Q", most, "bytes in a text"))

    def text(self, most: int) -> str:
        try:
            return self.encoded(most).decode()
        except UnicodeDecodeError:
            self.broken("holds a text that is not UTF-8")

    def value(self, kind: int) -> Value:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text(MAX_TEXT_BYTES)
        if kind != ARRAY:
            self.broken(f"holds a value of the type {kind}, which the format does not have")
        kind = int(self.number("I"))
        count = self.count("Q", MAX_ELEMENTS - self._elements, "further elements of arrays")
        self._elements += count
        if kind == STRING:
            return Texts(tuple(self._texts(count)))
        if kind not in NUMBERS:
            self.broken(f"holds an array of values of the type {kind}, which is not read")
        code = f"<{count}{NUMBERS[kind]}"
        return list(struct.unpack(code, self.take(struct.calcsize(code))))

    def _texts(self, count: int) -> list[bytes]:
        """Read encoded texts: as `encoded`, but in one loop, for there may be half a million."""
        texts = []
        for _ in range(count):
            start = self.at + 8
            end = start + int.from_bytes(self._buffer[self.at : start], "little")
            if end > self._end or end - start > MAX_TEXT_BYTES:
                self.encoded(MAX_TEXT_BYTES)  # says what is wrong
            texts.append(self._buffer[start:end])
            self.at = end
        return texts


def _entry(cursor: _Cursor) -> tuple[str, TensorType, tuple[int, ...], int]:
    """Return one line of the table of tensors: name, type, shape, and offset behind the header."""
    name = cursor.text(MAX_NAME_BYTES)
    dimensions = cursor.count("I", MAX_DIMENSIONS, "dimensions of a tensor")
    sizes = [cursor.count("Q", MAX_SIZE, "rows or columns") for _ in range(dimensions)]
    kind = int(cursor.number("I"))
    offset = cursor.count("Q", MAX_SIZE, "bytes")
    if kind not in TYPES:
        which = UNREAD.get(kind, str(kind))
        readable = ", ".join(each.name for each in TYPES.values())
        why = (
            f"its tensor {name!r} has the GGUF type {which}, and those that are read are {readable}"
        )
        raise UnsupportedModel(cursor.model, why)
    stored = TYPES[kind]
    if not sizes or 0 in sizes or sizes[0] % stored.block:
        needs = f"{stored.name} lies in rows of whole blocks of {stored.block}"
        cursor.broken(f"says that the tensor {name!r} has the shape {sizes}, and {needs}")
    return name, stored, tuple(reversed(sizes)), offset


def _places(
    cursor: _Cursor, entries: list[tuple[str, TensorType, tuple[int, ...], int]], alignment: int
) -> dict[str, StoredTensor]:
    """Return where tensors lie. Raises DamagedModel unless they lie in the file side by side."""
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, StoredTensor] = {}
    for name, kind, shape, offset in entries:
        nbytes = kind.row_bytes(shape[-1])
        for size in shape[:-1]:
            nbytes *= size
        if name in tensors:
            cursor.broken(f"holds the tensor {name!r} twice")
        if offset % alignment:
            cursor.broken(f"says that the tensor {name!r} begins between two blocks of {alignment}")
        tensors[name] = StoredTensor(kind, shape, start + offset, nbytes)
    end = start
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            cursor.broken("says that two of its tensors lie at the same place")
        end = tensor.offset + tensor.nbytes
    if end > cursor.size and tensors:
        cursor.broken(f"has {cursor.size:,} bytes, and its tensors take {end:,}")
    return tensors
