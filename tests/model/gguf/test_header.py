"""A GGUF file is read as its header says, or refused with a sentence about what is wrong."""

import struct
import tracemalloc
from collections.abc import Callable, Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.gguf_files import F32, Content, Tensor, pack
from swarm.errors import DamagedModel, UnsupportedModel
from swarm.model.gguf import header
from swarm.model.gguf.header import StoredTensor, Texts, parse

MATRIX = np.arange(128, dtype=np.float32).reshape(2, 64)


def content() -> Content:
    made = Content(
        {
            "general.architecture": "llama",
            "general.alignment": 64,
            "llama.rope.freq_base": 10000.0,
            "a.flag": True,
            "a.list": [1, 2, 3],
            "a.texts": ["a", "", "é"],
        }
    )
    for name, kind in (("one.weight", F32), ("two.weight", 2), ("three.weight", 8)):
        made.tensors[name], _ = pack(MATRIX, kind)
    return made


def test_metadata_and_places_are_read() -> None:
    whole = content().bytes()
    read = parse("m", "f", whole)
    assert read.metadata["general.architecture"] == "llama"
    assert read.metadata["llama.rope.freq_base"] == 10000.0
    assert read.metadata["a.flag"] is True
    assert read.metadata["a.list"] == [1, 2, 3]
    assert read.metadata["a.texts"] == Texts((b"a", b"", "é".encode()))
    one, two, three = read.tensors.values()
    assert (one.shape, one.type.name, one.nbytes) == ((2, 64), "F32", 512)
    assert (two.type.name, two.nbytes) == ("Q4_0", 4 * 18)
    assert (three.type.name, three.nbytes) == ("Q8_0", 4 * 34)
    assert whole[one.offset : one.offset + one.nbytes] == MATRIX.tobytes()
    assert all(each.offset % 64 == 0 for each in read.tensors.values())


def test_a_file_without_tensors_and_of_version_2_is_read() -> None:
    made = Content({"general.architecture": "llama"}, version=2)
    assert parse("m", "f", made.bytes()).tensors == {}


def big_endian(whole: bytes) -> bytes:
    return whole[:4] + struct.pack(">I", 3) + whole[8:]


def with_counts(tensors: int, keys: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:8] + struct.pack("<QQ", tensors, keys) + whole[24:]


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(whole: bytes) -> bytes:
        assert whole.count(old) == 1
        return whole.replace(old, new)

    return change


TWO = struct.pack("<Q", 10) + b"two.weight" + struct.pack("<I", 2)
SIZES = struct.pack("<QQ", 64, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: b"", "ends within its header"),
        (lambda whole: b"GGML" + whole[4:], "is no GGUF file"),
        (big_endian, "has the version 50331648"),
        (with_counts(1 << 63, 1), "tensors, and more than"),
        (with_counts(1, 1 << 40), "keys, and more than"),
        (with_counts(3, 7), r"ends within|a value of the type|bytes in a text"),
        (lambda whole: whole[:-64], "its tensors take"),
        (lambda whole: whole[:200], "ends within its header"),
        (replaced(b"a.flag", b"a.list"), "has the key 'a.list' twice"),
        (replaced(b"two.weight", b"one.weight"), "holds the tensor 'one.weight' twice"),
        (replaced(b"one.weight", b"one.\xff\xffight"), "not UTF-8"),
        (replaced(TWO + SIZES, TWO + struct.pack("<QQ", 63, 2)), "whole blocks of 32"),
        (replaced(TWO + SIZES, TWO + struct.pack("<QQ", 0, 2)), "whole blocks"),
        (replaced(TWO + SIZES, TWO + struct.pack("<QQ", 64, 1 << 39)), "at the same place|take"),
        (replaced(TWO, TWO[:-4] + struct.pack("<I", 5)), "dimensions of a tensor"),
        (
            replaced(
                b"general.alignment" + struct.pack("<II", 4, 64),
                b"general.alignment" + struct.pack("<II", 4, 3),
            ),
            "general.alignment is 3",
        ),
    ],
)
def test_damage_is_named(change: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(DamagedModel, match=words):
        parse("m", "f", change(content().bytes()))


def test_arrays_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself is small: a file's bytes become objects, which are larger."""
    monkeypatch.setattr(header, "MAX_ELEMENTS", 7)
    made = content()
    assert len(parse("m", "f", made.bytes()).metadata) == 6
    made.metadata["a.third"] = [1, 2]
    with pytest.raises(DamagedModel, match="holds 2 further elements of arrays, and more than 1 "):
        parse("m", "f", made.bytes())


def test_tensors_that_lie_between_others_or_upon_them_are_refused() -> None:
    whole = content().bytes()
    second = struct.pack("<IQ", 2, 512)
    for offset, words in ((64, "at the same place"), (511, "between two blocks")):
        with pytest.raises(DamagedModel, match=words):
            parse("m", "f", replaced(second, struct.pack("<IQ", 2, offset))(whole))


@pytest.mark.parametrize(("kind", "name"), [(18, "IQ3_XXS"), (99, "99")])
def test_a_type_that_is_not_read_is_named(kind: int, name: str) -> None:
    made = content()
    made.tensors["four.weight"] = Tensor(kind, (1, 256), bytes(98))
    with pytest.raises(UnsupportedModel, match=f"'four.weight' has the GGUF type {name}.*Q4_K"):
        parse("m", "f", made.bytes())


WHOLE = content().bytes()
HEADER = WHOLE[: 64 * -(-WHOLE.index(b"three.weight") // 64) + 64]


@settings(max_examples=300, deadline=None)
@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    end=st.one_of(st.none(), st.integers(0, len(WHOLE))),
)
def test_any_damage_is_refused_or_harmless_and_takes_no_memory(
    flips: list[tuple[int, int]], end: int | None
) -> None:
    damaged = bytearray(WHOLE)
    for at, value in flips:
        damaged[at] = value
    cut = bytes(damaged[:end])
    refusal = ""
    tensors: Collection[StoredTensor] = ()
    tracemalloc.start()
    try:
        tensors = parse("m", "f", cut).tensors.values()
    except (DamagedModel, UnsupportedModel) as error:
        refusal = str(error)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert "\n" not in refusal
    assert all(0 <= each.offset <= each.offset + each.nbytes <= len(cut) for each in tensors)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(tail: bytes) -> None:
    with pytest.raises((DamagedModel, UnsupportedModel)):
        parse("m", "f", b"GGUF" + struct.pack("<I", 3) + b"\x01" + bytes(7) + b"\x05" + tail)
