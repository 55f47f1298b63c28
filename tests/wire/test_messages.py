"""A message that exists is valid."""

import math

import pytest
import torch
from pydantic import ValidationError

from swarm.wire.faults import FaultCode
from swarm.wire.fields import MAX_ADDRESS, MAX_SESSION_TOKENS, MAX_TEXT, printable
from swarm.wire.messages import (
    MAX_HOPS,
    MAX_VOCABULARY,
    AcceptFrom,
    Accepting,
    Behalf,
    Cancel,
    Close,
    Fault,
    Frame,
    Hop,
    Mirror,
    Open,
    Opened,
    Ping,
    Pong,
    Probe,
    Progress,
    Reroute,
    Rerouted,
    Result,
)
from swarm.wire.tensors import MAX_FRAME_TOKENS, WireTensor

SESSION = bytes(range(16))
HIDDEN = WireTensor.pack(torch.zeros(2, 3))
HOP = {"peer_id": "12D3KooWExample", "address": "203.0.113.9:4001", "certificate": "0f" * 32}

VALID = {
    Hop: HOP,
    Open: {
        "session": SESSION,
        "fingerprint": "ab" * 16,
        "first": 0,
        "last": 8,
        "max_tokens": 100,
        "next": Hop(**HOP),
        "epoch": 3,
    },
    Opened: {"session": SESSION},
    Frame: {"session": SESSION, "epoch": 0, "first": 1, "tail": 1, "tokens": (1, 2)},
    Result: {"session": SESSION, "epoch": 0, "first": 1, "count": 4, "hidden": HIDDEN},
    Cancel: {"session": SESSION, "epoch": 1},
    Reroute: {"session": SESSION, "epoch": 1, "root": 5, "next": Hop(**HOP), "replay": 1},
    Rerouted: {"session": SESSION, "epoch": 1},
    AcceptFrom: {"session": SESSION, "speakers": ("12D3KooWExample",)},
    Accepting: {"session": SESSION, "speakers": ()},
    Mirror: {"session": SESSION, "to": Hop(**HOP)},
    Probe: {"session": SESSION},
    Progress: {"session": SESSION, "epoch": 1, "last": 7, "passed": 5},
    Close: {"session": SESSION},
    Ping: {"nonce": 1},
    Pong: {"nonce": 1},
    Behalf: {"clients": 4},
    Fault: {"code": FaultCode.BUSY, "text": "later", "session": SESSION, "peer": "12D3KooWExample"},
}

WRONG = [
    *[
        (kind, {"session": wrong})
        for kind in (Opened, Frame, Reroute, Mirror, Probe)
        for wrong in (bytes(15), bytes(17), b"", "x" * 16)
    ],
    *[
        (Frame, {name: wrong})
        for name in ("epoch", "root", "first", "tail")
        for wrong in (-1, True, 1.0, "1", None)
    ],
    *[(Frame, {name: 1 << 31}) for name in ("epoch", "root", "first")],
    *[(kind, {"first": 0}) for kind in (Frame, Result)],  # the beginning is no token
    *[
        (Frame, {"parents": wrong})
        for wrong in ((), (1,), (1, 1, 1), (1, 0), (1, -1), (1, 1.0), (1, True), (1, 1 << 31))
    ],
    (Frame, {"tail": 3}),
    (Frame, {"tokens": ()}),
    (Frame, {"tokens": None}),
    (Frame, {"tokens": (1, -1)}),
    (Frame, {"tokens": (1, True)}),
    (Frame, {"tokens": (1, 2.0)}),
    (Frame, {"tokens": (1, MAX_VOCABULARY)}),
    (Frame, {"tokens": (1,) * (MAX_FRAME_TOKENS + 1)}),
    (Frame, {"hidden": HIDDEN}),
    (Frame, {"replay": 0}),  # a replay is not answered, and has no tail
    *[
        (kind, {"replay": wrong})
        for kind in (Frame, Reroute)
        for wrong in (-1, True, 1.0, MAX_HOPS + 1)
    ],
    (Mirror, {"to": "somewhere"}),
    (Open, {"previous": ""}),
    *[
        (kind, {"speakers": wrong})
        for kind in (AcceptFrom, Accepting)
        for wrong in (None, ("me",), ("12D3KooWExample",) * 5)
    ],
    (Reroute, {"next": None}),
    *[
        (kind, {"epoch": wrong})
        for kind in (Open, Reroute, Rerouted, Progress)
        for wrong in (-1, 1 << 31, None)
    ],
    *[(Reroute, {"root": wrong}) for wrong in (-1, 1 << 31, None)],
    *[(Progress, {name: wrong}) for name in ("last", "passed") for wrong in (-1, 1 << 31, None)],
    (Frame, {"tokens": None, "hidden": WireTensor.pack(torch.zeros(0, 3)), "tail": 0}),
    (Frame, {"tokens": None, "hidden": HIDDEN, "tail": 3}),
    *[
        (kind, {name: (wrong,)})
        for kind in (Frame, Result)
        for name in ("compute_ms", "queue_ms")
        for wrong in (math.nan, math.inf, -1.0, 1e8, True)
    ],
    *[(Frame, {name: (1.0,) * (MAX_HOPS + 1)}) for name in ("compute_ms", "queue_ms")],
    (Result, {"count": 0}),
    (Result, {"count": 1}),  # a tail of two does not fit
    (Result, {"count": MAX_FRAME_TOKENS + 1}),
    (Open, {"first": 8}),
    (Open, {"first": -1}),
    (Open, {"last": 1001}),
    (Open, {"max_tokens": 0}),
    (Open, {"max_tokens": MAX_SESSION_TOKENS + 1}),
    (Open, {"fingerprint": "AB" * 16}),
    (Open, {"fingerprint": "ab" * 16 + "\n"}),
    (Open, {"next": "somewhere"}),
    (Hop, {"peer_id": "short"}),
    (Hop, {"peer_id": "12D3KooW\x1b[31m"}),
    (Hop, {"address": "x" * (MAX_ADDRESS + 1)}),
    (Hop, {"certificate": "0f" * 31}),
    (Ping, {"nonce": 1 << 32}),
    (Pong, {"nonce": -1}),
    *[(Behalf, {"clients": wrong}) for wrong in (0, -1, 10_001, True, 1.0, None)],
    (Fault, {"code": "no such code"}),
    (Fault, {"text": "x" * (MAX_TEXT + 1)}),
    (Fault, {"peer": "12D3KooW\x1b[31m"}),
    *[(Fault, {"retry_ms": wrong}) for wrong in (-1.0, math.nan, True)],
    (Opened, {"branches": 1}),
]


@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.__name__)
def test_nothing_unknown_is_taken_and_nothing_changes_afterwards(kind):
    message = kind(**VALID[kind])
    with pytest.raises(ValidationError):
        kind(**VALID[kind], surprise=1)
    with pytest.raises(ValidationError):
        setattr(message, next(iter(VALID[kind])), None)


@pytest.mark.parametrize(
    ("kind", "wrong"), WRONG, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_field_out_of_bounds_makes_no_message(kind, wrong):
    with pytest.raises(ValidationError):
        kind(**{**VALID[kind], **wrong})


def test_bounds_are_inside():
    most = (1 << 31) - 1
    Frame(**{**VALID[Frame], "epoch": most, "root": most, "first": most, "parents": (1, most)})
    Frame(
        **{
            **VALID[Frame],
            "tokens": (MAX_VOCABULARY - 1,) * MAX_FRAME_TOKENS,
            "tail": MAX_FRAME_TOKENS,
        }
    )
    Frame(
        **{
            **VALID[Frame],
            "compute_ms": (0.0,) * MAX_HOPS,
            "queue_ms": (1e7,) * MAX_HOPS,
            "tail": 0,
        }
    )
    Frame(**{**VALID[Frame], "replay": MAX_HOPS, "tail": 0})
    Reroute(**{**VALID[Reroute], "epoch": most, "root": most, "replay": MAX_HOPS})
    Result(**{**VALID[Result], "count": 2})
    Open(**{**VALID[Open], "first": 999, "last": 1000, "max_tokens": MAX_SESSION_TOKENS})


def test_a_frame_counts_tokens_or_hidden_states():
    assert Frame(**VALID[Frame]).count == 2
    assert Frame(session=SESSION, epoch=0, first=1, tail=2, hidden=HIDDEN).count == 2


def test_a_fault_cannot_steer_the_terminal_that_shows_it():
    assert (
        Fault(code=FaultCode.BUSY, text="come\nback \x1b[31mlater\x9b").text
        == "come back  [31mlater "
    )
    assert printable("naïve 日本") == "naïve 日本"


@pytest.mark.parametrize(
    "odd", ["\n", "\x1b", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\ufeff"]
)
def test_strangers_break_no_lines_and_turn_no_text_around(odd: str) -> None:
    assert Fault(code=FaultCode.BUSY, text=f"a{odd}b").text == "a b"
