"""Messages of every kind, as hypothesis strategies, and what becomes of bytes from outside."""

import msgpack
import pytest
import torch
from hypothesis import strategies as st

from swarm.wire import messages
from swarm.wire.candidates import (
    LEAST_CANDIDATES,
    MAX_CANDIDATES,
    MAX_SEED,
    Candidates,
    HeadTerms,
)
from swarm.wire.codec import (
    MAX_REASON,
    PROTOCOL_VERSION,
    WireError,
    decode,
    encode,
)
from swarm.wire.faults import FaultCode
from swarm.wire.fields import MAX_ADDRESS, MAX_MODEL_LAYERS, MAX_SESSION_TOKENS, MAX_TEXT, printable
from swarm.wire.forks import Fork
from swarm.wire.messages import Fault, Frame, Result
from swarm.wire.taps import MAX_TAPS, LayerOutputs, TapTerms
from swarm.wire.tensors import MAX_FRAME_TOKENS, WireTensor

SESSION = bytes(range(16))
# of every message: an array of three, and its first entry
HEAD = b"\x93" + bytes([PROTOCOL_VERSION])

sessions = st.binary(min_size=16, max_size=16)
epochs = st.integers(0, (1 << 31) - 1)
serials = st.integers(0, (1 << 31) - 1)
firsts = st.integers(1, (1 << 31) - 1)
stage_ms = st.lists(st.floats(0, 1e7), max_size=messages.MAX_HOPS).map(tuple)
nonces = st.integers(0, (1 << 32) - 1)
peer_ids = st.from_regex(r"[A-Za-z0-9]{10,100}", fullmatch=True)
speakers = st.lists(peer_ids, max_size=messages.MAX_SPEAKERS).map(tuple)
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=MAX_TEXT)
hops = st.builds(
    messages.Hop,
    peer_id=peer_ids,
    address=st.text(min_size=3, max_size=MAX_ADDRESS),
    certificate=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@st.composite
def tensors(draw, min_tokens=0):
    dtype = draw(st.sampled_from(["float32", "bfloat16", "float16"]))
    tokens, hidden = draw(st.integers(min_tokens, 3)), draw(st.integers(1, 4))
    size = tokens * hidden * (4 if dtype == "float32" else 2)
    return WireTensor(
        dtype=dtype,
        tokens=tokens,
        hidden=hidden,
        data=draw(st.binary(min_size=size, max_size=size)),
    )


@st.composite
def frames(draw):
    token_ids = st.lists(st.integers(0, messages.MAX_VOCABULARY - 1), min_size=1, max_size=20).map(
        tuple
    )
    carried = draw(st.one_of(token_ids, tensors(min_tokens=1)))
    is_tensor = isinstance(carried, WireTensor)
    count = carried.tokens if is_tensor else len(carried)
    distances = st.lists(firsts, min_size=count, max_size=count).map(tuple)
    replay = draw(st.none() | st.integers(0, messages.MAX_HOPS))
    return Frame(
        session=draw(sessions),
        epoch=draw(epochs),
        root=draw(serials),
        first=draw(firsts),
        tail=draw(st.integers(0, count if replay is None else 0)),
        parents=draw(st.none() | distances),
        replay=replay,
        compute_ms=draw(stage_ms),
        queue_ms=draw(stage_ms),
        **{"hidden" if is_tensor else "tokens": carried},
    )


terms = st.builds(
    HeadTerms,
    count=st.integers(LEAST_CANDIDATES, MAX_CANDIDATES),
    temperature=st.floats(0, 100),
    seed=st.integers(0, MAX_SEED),
    wanted=st.binary(max_size=10).map(lambda ids: ids * 4),
)


@st.composite
def candidates(draw, rows=None):
    count = draw(st.integers(0, 3)) if rows is None else rows
    counts = tuple(draw(st.integers(1, 12)) for _ in range(count))
    size = 4 * sum(counts)
    whole = len(counts) == 1 and draw(st.booleans())
    return Candidates(
        counts=counts,
        tokens=b"" if whole else draw(st.binary(min_size=size, max_size=size)),
        logits=draw(st.binary(min_size=size, max_size=size)),
        log_sums=bytes(16) * len(counts),
    )


@st.composite
def results(draw):
    carried = draw(st.one_of(tensors(), candidates()))
    is_tensor = isinstance(carried, WireTensor)
    tail = carried.tokens if is_tensor else len(carried.counts)
    count = draw(st.integers(max(1, tail), MAX_FRAME_TOKENS))
    return Result(
        session=draw(sessions),
        epoch=draw(epochs),
        first=draw(firsts),
        count=count,
        compute_ms=draw(stage_ms),
        queue_ms=draw(stage_ms),
        **{"hidden" if is_tensor else "candidates": carried},
    )


@st.composite
def taps(draw, least=0, most=MAX_MODEL_LAYERS):
    layers = draw(st.sets(st.integers(least, most - 1), min_size=1, max_size=MAX_TAPS))
    return TapTerms(layers=tuple(sorted(layers)), float8=draw(st.booleans()))


@st.composite
def tapped(draw):
    terms = draw(taps())
    shape = draw(st.integers(1, 3)), len(terms.layers), draw(st.integers(1, 4))
    (outputs,) = LayerOutputs.pack(torch.zeros(shape), terms.float8)
    return messages.Tapped(
        session=draw(sessions), first=draw(firsts), layers=terms.layers, outputs=outputs
    )


def forks(most):
    return st.builds(Fork, session=sessions, root=firsts, count=st.integers(1, most))


@st.composite
def openings(draw):
    first = draw(st.integers(0, MAX_MODEL_LAYERS - 1))
    last = draw(st.integers(first + 1, MAX_MODEL_LAYERS))
    onward = draw(st.none() | hops)
    max_tokens = draw(st.integers(1, MAX_SESSION_TOKENS))
    return messages.Open(
        session=draw(sessions),
        fingerprint=draw(st.from_regex(r"[0-9a-f]{32}", fullmatch=True)),
        first=first,
        last=last,
        max_tokens=max_tokens,
        next=onward,
        previous=draw(st.none() | peer_ids),
        epoch=draw(epochs),
        head=draw(st.none() | terms) if onward is None else None,
        taps=draw(st.none() | taps(first, last)),
        fork=draw(st.none() | forks(max_tokens - 1)) if max_tokens > 1 else None,
    )


KINDS = {
    "open": openings(),
    "opened": st.builds(
        messages.Opened,
        session=sessions,
        branches=st.booleans(),
        taps=st.booleans(),
        forks=st.booleans(),
        held=st.integers(0, MAX_SESSION_TOKENS),
    ),
    "frame": frames(),
    "result": results(),
    "tapped": tapped(),
    "cancel": st.builds(messages.Cancel, session=sessions, epoch=epochs),
    "reroute": st.builds(
        messages.Reroute,
        session=sessions,
        epoch=epochs,
        root=serials,
        next=hops,
        replay=st.none() | st.integers(0, messages.MAX_HOPS),
    ),
    "heed": st.builds(messages.AcceptFrom, session=sessions, speakers=speakers),
    "heeding": st.builds(messages.Accepting, session=sessions, speakers=speakers),
    "mirror": st.builds(messages.Mirror, session=sessions, to=st.none() | hops),
    "rerouted": st.builds(messages.Rerouted, session=sessions, epoch=epochs),
    "probe": st.builds(messages.Probe, session=sessions),
    "standing": st.builds(
        messages.Progress,
        session=sessions,
        epoch=epochs,
        last=serials,
        passed=serials,
        queued=st.booleans(),
        batches=st.integers(0, 2**63 - 1),
    ),
    "changeterms": st.builds(
        messages.ChangeTerms, session=sessions, head=st.none() | terms, taps=st.none() | taps()
    ),
    "termschanged": st.builds(messages.TermsChanged, session=sessions),
    "refine": st.builds(
        messages.Refine,
        session=sessions,
        serial=firsts,
        count=st.integers(0, MAX_CANDIDATES),
    ),
    "refined": st.builds(
        messages.Refined, session=sessions, serial=firsts, candidates=candidates(1)
    ),
    "close": st.builds(messages.Close, session=sessions),
    "ping": st.builds(messages.Ping, nonce=nonces),
    "pong": st.builds(messages.Pong, nonce=nonces),
    "behalf": st.builds(messages.Behalf, clients=st.integers(1, messages.MAX_CLIENTS)),
    "fault": st.builds(
        Fault,
        code=st.sampled_from(FaultCode),
        text=texts,
        session=st.none() | sessions,
        peer=st.none() | peer_ids,
        retry_ms=st.none() | st.floats(0, 1e7),
    ),
}
any_message = st.one_of(*KINDS.values())
any_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=12)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=10) | st.binary(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)


def envelope(kind, fields, version=PROTOCOL_VERSION):
    """Return the bytes of a message, valid or not."""
    return msgpack.packb([version, kind, fields])


def reason(data):
    """Return why bytes are refused; fails if they are not."""
    with pytest.raises(WireError) as caught:
        decode(data)
    return str(caught.value)


def decode_or_refuse(data):
    """Assert what holds for any bytes: they are a message, or refused with a short reason."""
    try:
        outcome = decode(data)
    except WireError as error:
        outcome = error.reason
    if isinstance(outcome, str):
        assert len(outcome) <= MAX_REASON
        assert outcome == printable(outcome)
    else:
        assert decode(encode(outcome)) == outcome
