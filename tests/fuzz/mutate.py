"""Small changes to valid input: to values, to how they are packed, and to bytes."""

import struct
from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack

MAX_DEEP = 400  # nearly as far as msgpack goes down
MAX_LONG = 1 << 17
SMALL = 4096  # bytes of what is multiplied
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        b"",
        "",
        [],
        {},
        float("nan"),
        float("inf"),
        -float("inf"),
        1e308,
        5e-324,
        -0.0,
        1.5,
    ),
    *(0, 1, -1, 127, 128, 255, 256, 257, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63),
    *((1 << 64) - 1, -(1 << 31), -(1 << 63), 1 << 24, 1 << 20, 32_768, 32_769, 1000, 1001),
    *(
        "float32",
        "float64",
        "\x00\x1b[2J",
        "\ud7ff\u2028",
        "a" * 301,
        b"\x00" * 16,
        b"\xff" * 17,
        "0" * 32,
    ),
    *(
        [[]],
        {"": None},
        [1] * 257,
        {str(n): n for n in range(257)},
        [{}] * 9,
        msgpack.ExtType(5, b"x"),
    ),
    msgpack.Timestamp(1, 0),
)


def changed(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Return ``data`` with one to four changes, some with parts of ``others``."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False, raw=False)
    except Exception:  # it is broken already: msgpack raises about ten kinds of errors
        return changed_bytes(data, others, random)
    if random.random() < 0.25:
        return changed_bytes(data, others, random)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value = changed_value(value, others, random)
    try:
        packed = packed_by_a_liar(value, random) if random.random() < 0.3 else msgpack.packb(value)
    except (ValueError, OverflowError, TypeError, RecursionError):  # beyond what msgpack can say
        return changed_bytes(data, others, random)
    return changed_bytes(packed, others, random) if random.random() < 0.05 else packed


def changed_value(value: Any, others: Sequence[bytes], random: Random) -> Any:
    """Return a value with one changed part, at any depth."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        return _changed_map(value, others, random)
    if isinstance(value, list) and value and random.random() < 0.9:
        return _changed_list(value, others, random)
    return _instead(value, others, random)


def _changed_map(value: dict[Any, Any], others: Sequence[bytes], random: Random) -> dict[Any, Any]:
    key = random.choice(list(value))
    match random.randrange(8):
        case 0:
            return {k: v for k, v in value.items() if k != key}
        case 1:
            return value | {
                random.choice(("", "kind", "next", "x" * 50, b"session", 7, key)): random.choice(
                    ODD
                )
            }
        case 2:
            other = random.choice(list(value))
            return value | {key: value[other], other: value[key]}
        case _:
            return value | {key: changed_value(value[key], others, random)}


def _changed_list(value: list[Any], others: Sequence[bytes], random: Random) -> list[Any]:
    at = random.randrange(len(value))
    match random.randrange(8):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value * random.choice((2, 3, 100)) if _is_small(value) else value[:1]
        case 2:
            return [*value[:at], random.choice(ODD), *value[at:]]
        case _:
            return [*value[:at], changed_value(value[at], others, random), *value[at + 1 :]]


def _is_small(value: list[Any]) -> bool:
    try:
        return len(msgpack.packb(value)) < SMALL
    except (ValueError, OverflowError, TypeError):
        return False


def _instead(value: Any, others: Sequence[bytes], random: Random) -> Any:
    chance = random.random()
    if chance < 0.5 and isinstance(value, int | float) and not isinstance(value, bool):
        return random.choice(
            (value + 1, value - 1, -value, value * 2, float(value), int(value == value))
        )
    if chance < 0.5 and isinstance(value, bytes | str):
        return random.choice((value[:-1], value + value[:1], value * 2, value[1:], value[::-1]))
    if chance < 0.6 and isinstance(value, bytes):
        return value.decode("latin1")
    if chance < 0.6 and isinstance(value, str):
        return value.encode(errors="replace")
    if chance < 0.62:
        return _deep(value, random.choice((1, 2, 9, 100, MAX_DEEP)), random)
    if chance < 0.63:
        return random.choice((bytes, "x".__mul__))(random.choice((300, 5000, MAX_LONG)))
    if chance < 0.7 and others:
        try:
            return msgpack.unpackb(random.choice(others), strict_map_key=False)
        except Exception:  # see `changed`
            return None
    return random.choice(ODD)


def _deep(value: Any, depth: int, random: Random) -> Any:
    map_too = random.random() < 0.3
    for level in range(depth):
        value = {"a": value} if map_too and level % 2 else [value]
    return value


def changed_bytes(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Flip, cut, double, remove, insert bytes, or join them with others."""
    at = random.randrange(len(data) + 1)
    till = min(len(data), at + random.choice((1, 1, 2, 4, 16, 1000)))
    other = random.choice(others) if others else data
    match random.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data + other
        case 2:
            return data[:at] + data[till:]
        case 3:
            return data[:till] + data[at:till] * random.choice((1, 2, 50)) + data[till:]
        case 4:
            return data[:at] + random.choice(HEADERS) + data[till:]
        case 5:
            return data[:at] + other[at : at + 16] + data[till:]
        case 6:
            return data[:at] + random.randbytes(random.choice((1, 2, 8))) + data[at:]
        case _:
            return data[:at] + bytes(random.randrange(256) for _ in range(till - at)) + data[till:]


def packed_by_a_liar(value: Any, random: Random) -> bytes:
    """Pack as msgpack, with some wrong lengths, and some headers that are not the shortest."""
    if isinstance(value, list | tuple):
        return _header(0xDC, len(value), random) + b"".join(
            packed_by_a_liar(each, random) for each in value
        )
    if isinstance(value, dict):
        inner = (packed_by_a_liar(each, random) for pair in value.items() for each in pair)
        return _header(0xDE, len(value), random) + b"".join(inner)
    if isinstance(value, bytes):
        return _header(0xC5, len(value), random) + value
    if isinstance(value, str):
        encoded = value.encode(errors="replace")
        return _header(0xDA, len(encoded), random) + encoded
    packed: bytes = msgpack.packb(value)
    return packed


def _header(code: int, length: int, random: Random) -> bytes:
    """Return a header with the length in 2 bytes after ``code``, or in 4 after ``code + 1``."""
    if random.random() < 0.1:
        length = random.choice(
            (0, length + 1, max(length - 1, 0), 65535, 65536, 1 << 30, (1 << 32) - 1)
        )
    if length > 65535 or random.random() < 0.2:
        return struct.pack(">BI", code + 1, length)
    return struct.pack(">BH", code, length)


# The beginnings of arrays, maps, texts and extensions that go on for up to four gigabytes.
HEADERS = [
    *(bytes([code]) + b"\xff" * 4 for code in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)),
    *(bytes([code]) + b"\xff" * 2 for code in (0xC5, 0xC8, 0xDA, 0xDC, 0xDE)),
    *(
        bytes([code])
        for code in (
            0xC0,
            0xC1,
            0xC4,
            0xCB,
            0xCF,
            0xD3,
            0xD4,
            0xD8,
            0x90,
            0x9F,
            0x80,
            0x8F,
            0xA0,
            0xBF,
        )
    ),
    # times
    *(b"\xd6\xff\xff\xff\xff\xff", b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\xff" * 12),
    *(b"\x91" * 2000, b"\xdc\x01\x00" * 340, b"\xdd\x00\x01\x00\x00" * 9, b"\x81\xa0" * 600),
]
