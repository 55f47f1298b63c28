"""What a generation returns. Field names are part of the SDK and of every ``--json`` output."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from swarm.decoding.acceptance import SourceAcceptance
from swarm.decoding.decoder import FinishReason
from swarm.decoding.policy import PlainReason
from swarm.decoding.rules.rule import Origin
from swarm.routing.chain import Stage

DrafterKind = Literal["model", "head", "lookup", "lookup and model", "lookup and head"]


@dataclass(frozen=True)
class Likely:
    """A token that was likely by the target at one position; ``logprob`` is in nats."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Piece:
    """One committed token and why it was chosen.

    ``text`` is the text that became certain with it. It is empty while a character, or a possible
    stop string, is incomplete. The token itself begins ``offset`` characters after the beginning of
    the text.
    """

    token_id: int
    text: str
    origin: Origin  # who chose it
    drafted_id: int | None = None  # what was drafted here, if anything
    # the target's choice; differs from the token if verification is relaxed
    choice_id: int | None = None
    # the text of the token that lost: an overruled draft, or the choice that leniency passed over
    instead_of: str = ""
    deficit_nats: float = 0.0  # how much less likely a relaxed token is than the target's choice
    key: bool = False  # a draft was overruled because a key token was at stake
    reason: str = ""  # why a draft that missed the target's choice was kept, or was not
    # of the token, in nats at temperature 1, if `Options.logprobs` is given
    logprob: float | None = None
    likely: tuple[Likely, ...] = ()  # as many tokens as were asked for, the likeliest first
    offset: int = 0
    # If `Options.logits` is set: [vocabulary] float32, what it was chosen by, before penalties,
    # biases and temperature.
    logits: Tensor | None = field(default=None, repr=False, compare=False)
    # If `Options.hidden_states` is set: [hidden] float32, from which these come, behind the final
    # norm.
    hidden_state: Tensor | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the tensors."""
        plain = asdict(replace(self, logits=None, hidden_state=None))
        del plain["logits"], plain["hidden_state"]
        return plain


@dataclass(frozen=True)
class RouteStop:
    """One peer of the chain, the layers ``[a, b)`` it computed, and its round trip from the
    client."""

    peer_id: str
    layers: tuple[int, int]
    rtt_ms: float


@dataclass(frozen=True)
class Failover:
    """Peers that failed during a generation, and the time it took to go on without them."""

    peers: tuple[str, ...]  # that failed
    layers: tuple[int, int]  # the span [a, b) that was given to others
    noticed_ms: float  # from the last answer to knowing that something failed
    waited_ms: float  # for peers to appear, while no other peer served these layers
    repair_ms: float  # besides that, until the new peers held what the old ones did
    pause_ms: float  # from the last answer before to the first one after
    replayed_tokens: int
    standby: bool = False  # peers that stood by took all the places, so that nothing was replayed


@dataclass(frozen=True)
class Audits:
    """Texts that other peers computed again for a client since it began."""

    texts: int = 0  # that were computed again and compared
    disagreements: int = 0  # of these, where the answers differed
    # texts that could not be computed again, by reason (`swarm.audit.unaudited`)
    failures: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0  # texts that are still to be computed again
    caught: tuple[str, ...] = ()  # peers that lied and are banned
    token_layers: int = 0  # that peers computed for audits
    generated_token_layers: int = 0  # and for texts
    share: float = 0.0  # of the former in the latter


@dataclass(frozen=True)
class TimeShare:
    """The parts of a text's time, by what the text waited for. They add up to 1.

    What went on beside it does not count (`swarm.client.critical_path`).
    """

    links: float  # frames and answers on their way
    stages: float  # peers that computed this text's tokens
    judging: float  # the client's head, and the decisions
    drafting: float  # the client's drafter
    # all else: other sessions at a peer, repairs of the chain, the client's other tasks
    waiting: float


@dataclass(frozen=True)
class Compute:
    """Where a client computes its own part of a text."""

    device: str | None = "cpu"  # of the LM head, which judges; None if a peer holds it
    draft_device: str | None = None  # None without a draft model
    draft_dtype: str | None = None  # of the draft model's weights
    draft_vocab: int | None = None  # how many tokens the draft model's head computes
    draft_dtype_asked: bool = False  # by the user; else it is the fastest one here
    judging_threads: int = 1  # on the CPU
    drafting_threads: int = 1


ONE_CORE = Compute()


@dataclass(frozen=True)
class Stats:
    """Figures of one generation. Rates are None if nothing was drafted or decided."""

    prompt_tokens: int
    new_tokens: int
    seconds: float  # from the first frame to the last token
    tokens_per_second: float
    time_to_first_token_ms: float
    loops: int  # answers of the chain that decided something
    loop_ms: float  # mean time from sending a window to its answer, the prompt's chunks left out
    least_loop_ms: float  # the shortest of these
    # Mean per loop, one entry for each stage of the final route, over the loops in which that peer
    # computed these layers; 0 if there were none. ``queue``: the time that the stage let a frame
    # wait for other sessions.
    stage_compute_ms: tuple[float, ...]
    stage_queue_ms: tuple[float, ...]
    drafted_tokens: int
    accepted_tokens: int
    rejections: int  # drafted tokens that the target overruled
    # rejections where the target's own token was in flight already, as a branch
    branch_tokens: int
    key_tokens: int  # rejections because a key token was at stake
    # accepted tokens where the target would have chosen another one
    relaxed_tokens: int
    deficit_nats: float  # their cost: the sum of log p(target's choice) - log p(token)
    draft_acceptance_rate: float | None  # accepted / drafted
    mean_acceptance_length: float | None  # tokens committed per loop
    # share of accepted tokens among those judged, at each place of the window
    acceptance_by_position: tuple[float, ...]
    # number of loops by the number of drafted tokens that they accepted, from 0 on
    acceptance_histogram: tuple[int, ...]
    # until a drafted line is one token longer, however many other lines grow with it; the first
    # draft, which reads the prompt, is left out if there are others
    draft_ms_per_token: float | None
    # times that the text waited for a whole loop, because nothing sent ahead was of use
    waits: int
    frames: int  # sent around the loop, prompt chunks before the last left out
    in_flight_mean: float  # frames in flight whenever one was sent, itself included
    in_flight_max: int
    flushes: int  # times that everything in flight became void
    wasted_tokens: int  # sent ahead, but not part of the text
    # computed by the peers for each new token, the prompt left out
    positions_per_token: float | None
    # speed divided by the most that any speculation could reach (`swarm.decoding.bound`)
    bound_share: float | None
    bytes_sent: int  # by the client, all frames of the session
    bytes_received: int
    verification: Literal["exact", "relaxed"]
    rule: str  # that judged drafted tokens, with its settings
    draft_error: str | None  # of a drafter that failed; the rest was decoded plainly
    failovers: tuple[Failover, ...]  # peers that failed and were replaced
    seed: int | None  # of the sampling noise; None for greedy
    finish_reason: FinishReason
    # tokens of the prompt that the peers held already, from a text that it continues
    cached_tokens: int = 0
    audits: Audits = Audits()
    drafter: DrafterKind | None = None  # that the text began with; None for plain decoding
    # why the most part of the text was decoded plainly (`swarm.decoding.policy`); None if drafted
    plain_reason: PlainReason | None = None
    compute: Compute = ONE_CORE  # by the client
    share: TimeShare | None = None  # of the text's time; None if no token was decided
    # mean time from taking an answer to having decided, the prompt's left out; None without answers
    judge_ms: float | None = None
    # first choices of each source of drafts that were decided and kept, by their distance behind
    # the last answer (`swarm.decoding.acceptance`)
    acceptance_by_source: tuple[SourceAcceptance, ...] = ()


@dataclass(frozen=True)
class Generation:
    """A finished generation.

    ``token_ids`` are the new tokens, a stop token or string included; ``text`` leaves it out.

    ``pieces`` says of every token where it comes from and why.
    """

    text: str
    token_ids: tuple[int, ...]
    route: tuple[RouteStop, ...]
    stats: Stats
    pieces: tuple[Piece, ...] = ()

    def as_dict(self, explain: bool = False) -> dict[str, Any]:
        """Plain data for JSON; the pieces only if ``explain``, and no tensors."""
        everything = asdict(replace(self, pieces=()))
        del everything["pieces"]
        return everything | (
            {"pieces": tuple(piece.as_dict() for piece in self.pieces)} if explain else {}
        )


@dataclass(frozen=True)
class Measured:
    """The times of one answer of the chain."""

    loop_ms: float  # from sending what it answers to its arrival
    compute_ms: tuple[float, ...]  # of each stage
    queue_ms: tuple[float, ...] = ()  # of each stage: waiting for other sessions
    # the chain that answered, whose times these are; () if it is not known
    stages: tuple[Stage, ...] = ()
    positions: int = 1  # that were computed in these times


@dataclass(frozen=True)
class StageTimes:
    """The mean times of one peer for its part of a loop."""

    compute_ms: float
    queue_ms: float  # that frames waited there for other sessions
