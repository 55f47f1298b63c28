"""The examples of messages and token trees in docs/protocol-vectors.json."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import torch

from swarm.decoding.candidates import choose_candidates, whole_row
from swarm.identity import Identity
from swarm.wire import messages
from swarm.wire.candidates import HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.forks import Fork
from swarm.wire.taps import LayerOutputs, TapTerms
from swarm.wire.tensors import WireTensor

SESSION = bytes(range(16))


def every_message(alice: Identity, bob: Identity) -> Iterator[messages.WireMessage]:
    """Return each kind of message, with all fields, and with only the required ones."""
    hop = messages.Hop(
        peer_id=bob.peer_id, address="203.0.113.5:31330", certificate=bob.certificate_fingerprint
    )
    hidden = WireTensor.pack(torch.tensor([[0.5, -2.0], [1.0, 0.25]]).to(torch.bfloat16))
    of = {"session": SESSION}
    open_ = {**of, "fingerprint": "0123456789abcdef" * 2, "first": 4, "last": 8, "max_tokens": 700}
    yield messages.Open(**open_)
    yield messages.Open(**open_, next=hop, previous=alice.peer_id, epoch=3)
    terms = HeadTerms(count=64, temperature=0.7, seed=5, wanted=bytes([3, 0, 0, 0, 9, 1, 0, 0]))
    yield messages.Open(**open_, head=HeadTerms(count=64))
    yield messages.Open(**open_, head=terms)
    taps = TapTerms(layers=(4, 7))
    yield messages.Open(**open_, taps=taps)
    yield messages.Open(**open_, fork=Fork(session=bytes(range(16, 32)), root=620, count=512))
    yield messages.Opened(**of)
    yield messages.Opened(**of, branches=False, taps=True)
    yield messages.Opened(**of, taps=True, forks=True, held=512)
    yield messages.Frame(**of, epoch=0, first=1, tail=1, tokens=(5, 300, 70_000))
    yield messages.Frame(**of, epoch=2, root=3, first=9, tail=2, parents=(6, 2), tokens=(7, 8))
    yield messages.Frame(
        **of, epoch=2, root=3, first=9, tail=2, hidden=hidden, compute_ms=(1.5,), queue_ms=(0.0,)
    )
    yield messages.Frame(**of, epoch=3, first=1, tail=0, hidden=hidden, replay=1)
    yield messages.Result(
        **of, epoch=2, first=9, count=3, hidden=hidden, compute_ms=(1.5, 2.25), queue_ms=(0.0, 0.5)
    )
    yield messages.Result(
        **of, epoch=0, first=1, count=256, hidden=WireTensor.pack(torch.zeros(0, 2))
    )
    rows = torch.tensor([[0.5, -2.0, 3.0, 0.0, 1.0, 1.0, -1.0, 2.5, 0.25, -3.0]] * 2)
    few = HeadTerms(count=8)
    yield messages.Result(
        **of, epoch=2, first=9, count=2, candidates=choose_candidates(rows, [7, 8], few)
    )
    states = torch.tensor([[[0.5, -2.0], [1.0, 0.25]], [[3.0, 0.0], [0.0, 0.0]]])
    for float8 in (True, False):
        for outputs in LayerOutputs.pack(states.to(torch.bfloat16), float8):
            yield messages.Tapped(**of, first=9, layers=taps.layers, outputs=outputs)
    yield messages.Cancel(**of, epoch=4)
    yield messages.Reroute(**of, epoch=5, root=12, next=hop)
    yield messages.Reroute(**of, epoch=5, root=12, next=hop, replay=2)
    yield messages.Reroute(**of, epoch=5, root=12, next=hop, replay=None)
    yield messages.Rerouted(**of, epoch=5)
    yield messages.AcceptFrom(**of, speakers=(alice.peer_id, bob.peer_id))
    yield messages.AcceptFrom(**of, speakers=())
    yield messages.Accepting(**of, speakers=(alice.peer_id, bob.peer_id))
    yield messages.Mirror(**of)
    yield messages.Mirror(**of, to=hop)
    yield messages.Probe(**of)
    yield messages.Progress(**of, epoch=2, last=17, passed=15)
    yield messages.ChangeTerms(**of, head=terms)
    yield messages.ChangeTerms(**of, taps=TapTerms(layers=(4,), float8=False))
    yield messages.TermsChanged(**of)
    yield messages.Refine(**of, serial=17, count=256)
    yield messages.Refine(**of, serial=17, count=0)
    yield messages.Refined(
        **of, serial=17, candidates=choose_candidates(rows[:1], [7], HeadTerms(count=8))
    )
    yield messages.Refined(**of, serial=17, candidates=whole_row(rows[0], few))
    yield messages.Close(**of)
    yield messages.Ping(nonce=7)
    yield messages.Pong(nonce=(1 << 32) - 1)
    yield messages.Behalf(clients=4)
    for code in FaultCode:
        yield messages.Fault(code=code, text="why", session=SESSION)
    yield messages.Fault(code=FaultCode.BAD_MESSAGE, text="no [version, kind, fields]")
    yield messages.Fault(
        code=FaultCode.NEXT_UNREACHABLE, text="", session=SESSION, peer=bob.peer_id
    )
    yield messages.Fault(code=FaultCode.BUSY, text="later", session=SESSION, retry_ms=250.0)


def broken_messages() -> Iterator[tuple[str, bytes]]:
    """Return bytes that must be refused, and what is wrong with each."""

    def packed(*envelope: Any) -> bytes:
        data: bytes = msgpack.packb(list(envelope))
        return data

    frame = {"session": SESSION, "epoch": 0, "first": 1, "tail": 0, "tokens": [5]}
    yield "no msgpack", b"\xc1"
    yield "an array of two", packed(4, "ping")
    yield "another version", packed(3, "ping", {"nonce": 1})
    yield "a version that is a bool", packed(True, "ping", {"nonce": 1})
    yield "an unknown kind", packed(4, "pang", {"nonce": 1})
    yield "a field is missing", packed(4, "ping", {})
    yield "a field is unknown", packed(4, "ping", {"nonce": 1, "extra": 1})
    yield "a number beyond its limit", packed(4, "ping", {"nonce": 1 << 32})
    yield "a float where an int is due", packed(4, "ping", {"nonce": 1.0})
    yield "a str where bytes are due", packed(4, "close", {"session": "0123456789abcdef"})
    yield (
        "no tokens and no hidden states",
        packed(4, "frame", {k: v for k, v in frame.items() if k != "tokens"}),
    )
    yield "a tail longer than the frame", packed(4, "frame", {**frame, "tail": 2})
    yield "fewer parents than tokens", packed(4, "frame", {**frame, "parents": []})
    yield "a replay that wants an answer", packed(4, "frame", {**frame, "replay": 0, "tail": 1})
    yield "an empty span", packed(4, "open", {**_open_fields(), "last": 4})
    yield (
        "more bytes than dtype and shape say",
        packed(4, "result", {**_result_fields(), "count": 1}),
    )
    yield "nine arrays and maps", packed(4, "frame", {**frame, "tokens": [[]] * 7})


def _open_fields() -> dict[str, Any]:
    return {"session": SESSION, "fingerprint": "0" * 32, "first": 4, "last": 8, "max_tokens": 1}


def _result_fields() -> dict[str, Any]:
    hidden = {"dtype": "float32", "tokens": 1, "hidden": 1, "data": b"\0" * 5}
    return {"session": SESSION, "epoch": 0, "first": 1, "hidden": hidden}


# The stream rule: epoch, root, first serial, parents (or how many tokens follow each other), and
# perhaps "replay". A pair is a cut, as by a reroute: epoch and root. A single number is a cancel:
# epoch.

Said = (
    tuple[int, int, int, int | list[int], str]
    | tuple[int, int, int, int | list[int]]
    | tuple[int, int]
    | int
)
STREAMS: dict[str, Sequence[Said]] = {
    "a prompt in two chunks, then tokens": [(0, 0, 1, 4), (0, 0, 5, 2), (0, 6, 7, 1), (0, 7, 8, 1)],
    "drafts go ahead; a newer epoch goes back to what was right": [
        *((0, 0, 1, 3), (0, 3, 4, 3), (0, 3, 7, 2)),
        *((1, 4, 9, [5]), (0, 3, 9, 1), (1, 9, 10, 2)),
    ],
    "two branches; the root follows one of them, and the other is forgotten": [
        *((0, 0, 1, 2), (0, 2, 3, [1, 2, 2, 2, 2])),
        *((0, 4, 8, [2]), (0, 6, 9, [1])),
    ],
    "a cancel is ahead of its frame": [(0, 0, 1, 3), (0, 3, 4, 2), 1, (0, 3, 6, 1), (1, 3, 7, [4])],
    "a new peer is told what the text is, and goes on": [
        *((2, 0, 3, [3, 1, 1], "replay"), (2, 5, 6, [1, 1], "replay")),
        *((2, 7, 12, [5]), (3, 12, 13, 1)),
    ],
    "a reroute goes back to its root": [(0, 0, 1, 3), (0, 3, 4, 3), (1, 4), (1, 4, 8, [4])],
    "a newer epoch from the beginning": [(0, 0, 1, 3), (1, 0, 4, [4, 1])],
    "a gap within an epoch": [(0, 0, 1, 3), (0, 0, 5, 1)],
    "a serial twice": [(0, 0, 1, 3), (1, 3, 3, 1)],
    "a root that is not held": [(0, 0, 1, 3), (0, 3, 4, 2), (0, 9, 6, 1)],
    "a root that is in the trunk already": [(0, 0, 1, 3), (0, 3, 4, 2), (0, 1, 6, 1)],
    "a parent that is forgotten": [(0, 0, 1, 3), (0, 3, 4, [1, 2]), (0, 4, 6, [1])],
    "a parent before the root": [(0, 0, 1, 3), (0, 3, 4, [2])],
}
