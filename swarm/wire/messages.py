"""The messages between clients and peers.

Every field is typed and bounded; a message that exists is valid.

A client opens a session on every peer of its chain, each time naming the peer that comes next. Then
frames travel around the loop::

    client --Frame(tokens)--> p1 --Frame(hidden)--> p2 --...--> pN --Result(hidden)--> client

A last peer that holds the model's head answers candidates (`swarm.wire.candidates`) in place of
hidden states, if the client asks for that. On request any peer also tells the client outputs of its
layers (`Tapped`, `swarm.wire.taps`).

`Cancel`, `Close`, `Reroute`, `AcceptFrom`, `Mirror`, `Probe`, `Refine`, `Ping` and `Fault` go
directly between a client and a peer. The client that opened a session commands it, over the same
link. A session's frames come over that link too, or from peers that its client names, which have
proved their ids (`swarm.wire.handshake`).
"""

from typing import Annotated

from pydantic import Field, model_validator

from swarm.wire.candidates import MAX_CANDIDATES, Candidates, HeadTerms
from swarm.wire.faults import FaultCode
from swarm.wire.fields import (
    MAX_MODEL_LAYERS,
    MAX_SESSION_TOKENS,
    MAX_VOCABULARY,
    Address,
    Certificate,
    Fingerprint,
    PeerId,
    ReasonText,
    Serial,
    SessionId,
    StrictModel,
)
from swarm.wire.forks import Fork
from swarm.wire.taps import LayerOutputs, TapLayers, TapTerms, ascend
from swarm.wire.tensors import MAX_FRAME_TOKENS, WireTensor

MAX_HOPS = 64
MAX_CLIENTS = 10_000  # that a gateway may speak for
MAX_SPEAKERS = 4  # the peer before, and some that may take its place

Epoch = Annotated[int, Field(ge=0, lt=1 << 31)]
Layer = Annotated[int, Field(ge=0, le=MAX_MODEL_LAYERS)]
TokenId = Annotated[int, Field(ge=0, lt=MAX_VOCABULARY)]
Milliseconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Speakers = Annotated[tuple[PeerId, ...], Field(strict=False, max_length=MAX_SPEAKERS)]
# strict=False where msgpack has no such type: tuples come as lists, enums as values. Their items
# stay strict.
TokenIds = Annotated[
    tuple[TokenId, ...], Field(strict=False, min_length=1, max_length=MAX_FRAME_TOKENS)
]
Distance = Annotated[int, Field(ge=1, lt=1 << 31)]  # how many serials before a token its parent is
Distances = Annotated[tuple[Distance, ...], Field(strict=False, max_length=MAX_FRAME_TOKENS)]
Hops = Annotated[int, Field(ge=0, le=MAX_HOPS)]
# one entry a stage
StageMs = Annotated[tuple[Milliseconds, ...], Field(strict=False, max_length=MAX_HOPS)]


class WireMessage(StrictModel):
    """Base of all messages."""


class SessionMessage(WireMessage):
    """Base of all messages of one session. Only a `Fault` may have a session or none."""

    session: SessionId


class Hop(WireMessage):
    """The address of the next peer of a chain, and its certificate."""

    peer_id: PeerId
    address: Address
    certificate: Certificate


class Open(SessionMessage):
    """Reserve room for ``max_tokens`` positions in layers ``[first, last)``.

    Outputs go to ``next``, or back to the client. Frames come from the peer ``previous``, or from
    the client alone. Frames of epochs before ``epoch`` are stale: the peer may have taken part in
    this session before. With ``head`` the peer answers candidates, by its own head. With ``taps``
    it also tells outputs of some of its layers (`Tapped`).

    With ``fork`` the session begins with a copy of what the peer holds of another one, which stays
    as it is. The last of these tokens gets the serial ``fork.count``, and is the root.
    """

    fingerprint: Fingerprint
    first: Layer
    last: Layer
    max_tokens: Annotated[int, Field(ge=1, le=MAX_SESSION_TOKENS)]
    next: Hop | None = None
    previous: PeerId | None = None
    epoch: Epoch = 0
    head: HeadTerms | None = None
    taps: TapTerms | None = None
    fork: Fork | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "Open":
        if self.first >= self.last:
            raise ValueError(f"layers {self.first}:{self.last} are no span")
        if self.head is not None and self.next is not None:
            raise ValueError("only the last peer answers candidates")
        if self.taps is not None and self.taps.within(self.first, self.last) != self.taps:
            raise ValueError(f"layers {self.first}:{self.last} do not have all taps")
        if self.fork is not None and self.fork.count >= self.max_tokens:
            raise ValueError(f"a session of {self.max_tokens} tokens has no room behind its fork")
        return self


class Opened(SessionMessage):
    """The answer to `Open`: the session is open, and the next peer answered.

    ``branches``: whether a token may have several continuations. ``taps``: whether the peer tells
    outputs of its layers on request. ``forks``: whether other sessions may begin with any beginning
    of this one. ``held``: how many tokens it begins with, see `Fork`.
    """

    branches: bool = True
    taps: bool = False
    forks: bool = False
    held: Annotated[int, Field(ge=0, le=MAX_SESSION_TOKENS)] = 0


class Frame(SessionMessage):
    """Tokens of a session from serial ``first`` on, as token ids or as hidden states.

    `swarm.wire.token_tree` defines epochs, roots and parents. Without ``parents`` each token
    follows the one before it. The last peer returns the final hidden states of the last ``tail``
    tokens. ``compute_ms`` and ``queue_ms`` (waiting for other sessions) grow by one entry a stage.

    A frame with ``replay`` gives a new peer the tokens that the replaced one held. The peer
    computes and keeps them, and passes them on to ``replay`` more peers. It is not answered. It
    outlives newer epochs, but not a `Cancel`.
    """

    epoch: Epoch
    root: Serial = 0
    first: Annotated[Serial, Field(ge=1)]
    tail: Annotated[int, Field(ge=0, le=MAX_FRAME_TOKENS)]
    parents: Distances | None = None
    tokens: TokenIds | None = None
    hidden: WireTensor | None = None
    replay: Hops | None = None
    compute_ms: StageMs = ()
    queue_ms: StageMs = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> "Frame":
        if (self.tokens is None) == (self.hidden is None):
            raise ValueError("a frame carries either tokens or hidden states")
        if not self.count:
            raise ValueError("a frame carries at least one token")
        if self.tail > self.count:
            raise ValueError(f"a tail of {self.tail} does not fit {self.count} tokens")
        if self.replay is not None and self.tail:
            raise ValueError("a replay is not answered, and has no tail")
        if self.parents is not None and len(self.parents) != self.count:
            raise ValueError(f"{len(self.parents)} parents for {self.count} tokens")
        return self

    @property
    def count(self) -> int:
        """How many tokens the frame carries."""
        if self.tokens is not None:
            return len(self.tokens)
        return self.hidden.tokens if self.hidden is not None else 0


class Result(SessionMessage):
    """The answer to ``count`` tokens from serial ``first`` on: one frame, or several that were
    computed together.

    It carries the final hidden states ``[tail, hidden]`` of the last ``tail`` tokens or, if the
    session was opened with ``head``, the candidates for what follows each of them.
    """

    epoch: Epoch
    first: Annotated[Serial, Field(ge=1)]
    count: Annotated[int, Field(ge=1, le=MAX_FRAME_TOKENS)]
    hidden: WireTensor | None = None
    candidates: Candidates | None = None
    compute_ms: StageMs = ()
    queue_ms: StageMs = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> "Result":
        if (self.hidden is None) == (self.candidates is None):
            raise ValueError("a result carries either hidden states or candidates")
        if self.tail > self.count:
            raise ValueError(f"a tail of {self.tail} does not fit {self.count} tokens")
        return self

    @property
    def tail(self) -> int:
        """How many tokens it answers."""
        if self.candidates is not None:
            return len(self.candidates.counts)
        return self.hidden.tokens if self.hidden is not None else 0


class Tapped(SessionMessage):
    """Outputs of ``layers`` at tokens that are answered, from serial ``first`` on; see `TapTerms`.

    Each peer sends those of its own layers straight to the client, in one part or several.
    """

    first: Annotated[Serial, Field(ge=1)]
    layers: TapLayers
    outputs: LayerOutputs

    @model_validator(mode="after")
    def _is_consistent(self) -> "Tapped":
        if not ascend(self.layers) or len(self.layers) != self.outputs.layers:
            raise ValueError(f"outputs of {self.outputs.layers} layers for {self.layers}")
        return self


class Cancel(SessionMessage):
    """Drop frames of epochs before ``epoch``, also those that wait: they are stale."""

    epoch: Epoch


class Reroute(SessionMessage):
    """The next peer has failed, and ``next`` takes its place.

    Forget all tokens that do not lead to ``root``, which has been answered. Replay the others to
    the new peer, and through it to ``replay`` more. A newer reroute replaces one that is under way.

    With ``replay=None`` the new peer holds these tokens already, because it stood by (`Mirror`).
    """

    epoch: Epoch
    root: Serial
    next: Hop
    replay: Hops | None = 0


class Rerouted(SessionMessage):
    """The answer to the `Reroute` of the same epoch: everything has been replayed."""

    epoch: Epoch


class AcceptFrom(SessionMessage):
    """Accept frames from these peers from now on, besides those of the client, and from no others.

    The previous peer was replaced, or may be soon. Its kind on the wire is ``heed``.
    """

    speakers: Speakers


class Accepting(SessionMessage):
    """The answer to an `AcceptFrom` of the same speakers. Its kind on the wire is ``heeding``."""

    speakers: Speakers


class Mirror(SessionMessage):
    """Let ``to`` stand by for the next peer.

    Replay to it all that is held, and then send it every frame that is sent on, with ``replay=0``.

    One peer may stand by, the last that was named; None ends it. This is best effort and never
    disturbs the session, so it is not answered. A `Probe` of the peer that stands by returns its
    progress.
    """

    to: Hop | None = None


class Probe(SessionMessage):
    """Ask for the progress of a session; `Progress` answers."""


class Progress(SessionMessage):
    """The answer to a `Probe`. Its kind on the wire is ``standing``.

    ``last`` is the last token that came and was begun, ``passed`` the last one whose output was
    sent on. ``queued``: tokens of the session wait for their turn or are being computed.
    ``batches``: how many the peer has computed, for any session; by it a busy peer shows that it
    does not hang.
    """

    epoch: Epoch
    last: Serial
    passed: Serial
    queued: bool = False
    batches: Annotated[int, Field(ge=0, lt=1 << 63)] = 0


class ChangeTerms(SessionMessage):
    """Answer by other terms from now on: candidates, if opened with ``head``, and taps or none."""

    head: HeadTerms | None = None
    taps: TapTerms | None = None


class TermsChanged(SessionMessage):
    """The answer to a `ChangeTerms`."""


class Refine(SessionMessage):
    """Tell more of the prediction behind a token: its best ``count`` tokens, or all with 0.

    The token has been answered, and still leads to what follows. `Refined` answers.
    """

    serial: Annotated[Serial, Field(ge=1)]
    count: Annotated[int, Field(ge=0, le=MAX_CANDIDATES)]


class Refined(SessionMessage):
    """The answer to the `Refine` of the same token: candidates for one prediction."""

    serial: Annotated[Serial, Field(ge=1)]
    candidates: Candidates


class Close(SessionMessage):
    """End the session and free its memory."""


class Ping(WireMessage):
    """Ask for a `Pong`, to measure the round trip."""

    nonce: Annotated[int, Field(ge=0, lt=1 << 32)]


class Pong(WireMessage):
    """The answer to the ping of the same nonce."""

    nonce: Annotated[int, Field(ge=0, lt=1 << 32)]


class Behalf(WireMessage):
    """Ask for the limits of ``clients`` clients: the sender is a gateway.

    The peer grants what it likes. Sent once, before any session is opened over the link, and not
    answered.
    """

    clients: Annotated[int, Field(ge=1, le=MAX_CLIENTS)]


class Fault(WireMessage):
    """Something failed; with a session, that session is over, unless it can go on by a `Reroute`.

    ``peer`` names a third peer if that one is to blame: the next one, or with `NOT_FINITE` the one
    before. A peer that is busy says when to try again (``retry_ms``).
    """

    code: Annotated[FaultCode, Field(strict=False)]
    text: ReasonText
    session: SessionId | None = None
    peer: PeerId | None = None
    retry_ms: Milliseconds | None = None
