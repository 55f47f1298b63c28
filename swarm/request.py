"""The arguments of a generation, checked once."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import TypedDict

from swarm.decoding.constraint import Constraint
from swarm.decoding.decoder import MAX_SENT_AHEAD
from swarm.decoding.drafting.choices import CHOICES
from swarm.decoding.outline import Outline
from swarm.decoding.policy import MAX_DEPTH, SpeculationPolicy
from swarm.decoding.rules.choose import Verification
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.decoding.streaming import STREAM_BRANCHES, STREAM_WINDOW, Streaming
from swarm.decoding.window import AutoWindow, FixedWindow
from swarm.errors import NeedsHead, PromptTooLong, RequestError
from swarm.model.checkpoint import Checkpoint
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.tensors import MAX_FRAME_TOKENS

MAX_WINDOW = MAX_FRAME_TOKENS // 2  # a window and the tokens before it share a frame
DEFAULT_NEW_TOKENS = 256
REMARK_TOKENS = 256  # room for what a user says between two texts of a conversation
DEFAULT_PATIENCE_S = 30.0
MAX_PATIENCE_S = 3600.0
MAX_OWNER_CHARS = 256
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_STOP_TOKENS = 256
MAX_LOGPROBS = 20  # as OpenAI's interface has it

WindowSize = int | Literal["auto"]
Depth = int | Literal["auto"]


class Options(TypedDict, total=False):
    """The keyword arguments of `SwarmClient.generate` and `SwarmClient.stream`; all may be left
    out."""

    max_new_tokens: int  # at least 1
    # drafted tokens a frame at most; 0 is plain decoding; "auto" finds the fastest
    window: WindowSize
    # frames in flight at most; 1 waits for every window; "auto" streams as far ahead as it pays
    depth: Depth
    # choices of the draft for one place that are sent at most, if it streams; 1 is the first alone
    branches: int
    verify: str  # the rule that judges drafted tokens, "strict" or such as "adaptive:tau=0.5"
    # draft what followed the same tokens before, too; None: without a draft model only where that
    # is likely enough to be worth the peers' time
    lookup: bool | None
    # whose text it is: it goes on from kept sessions of that owner alone; None: it is not known
    # whose. Such texts go on from each other's, and nothing else of them serves a later one
    owner: str | None
    # draft it from earlier texts of its owner, and let it join them; False keeps nothing of it
    remember: bool
    # let the draft learn from what the target chooses; False takes it as it is
    learn: bool
    temperature: float  # 0 is greedy
    top_k: int  # 0 and -1 keep all tokens
    top_p: float  # 0 keeps the likeliest token alone
    seed: int | None  # of the sampling noise; the same seed gives the same text. None draws one
    min_p: float  # keeps tokens with this share of the likeliest one's probability; 0 keeps all
    repetition_penalty: float  # above 1 discourages tokens that occurred before
    # nats, from -2 to 2, taken from tokens that the answer holds; and for each time that it does
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]  # token id to nats
    # what the answer has to look like: a JSON schema, a regular expression, a grammar or a choice;
    # an outline has it for a part of the answer, such as what follows its thoughts
    constraint: Constraint | Outline | None
    min_tokens: int  # that the answer has before it may end by a stop token or string
    # the text ends before the first of these strings; an empty one is ignored
    stop: Sequence[str]
    # tokens that end the text; None: the end tokens of the model
    stop_token_ids: Collection[int] | None
    # special tokens that have text all the same, such as those that mark calls of tools
    spelled_tokens: Collection[int]
    # return every token's log probability, and those of this many likeliest tokens
    logprobs: int | None
    logits: bool  # return every token's logits: 4 bytes for each token of the vocabulary
    hidden_states: bool  # return every token's last hidden state: 4 bytes for each dimension
    # how long layers may be without a peer before the generation is given up
    patience_s: float
    # let other peers stand by for those of the chain: failures cost less, peers compute twice
    standby: bool
    # let the peers keep the session for a while: a text that continues this one begins sooner
    keep: bool


@dataclass(frozen=True)
class Request:
    """How to generate; see `Options`.

    Raises:
        RequestError: for a value out of range.
    """

    max_new_tokens: int = DEFAULT_NEW_TOKENS
    window: WindowSize = "auto"
    depth: Depth = "auto"
    branches: int = STREAM_BRANCHES
    verification: Verification = field(default_factory=Verification)
    lookup: bool | None = None
    owner: str | None = ""
    remember: bool = True
    learn: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    shaping: Shaping = field(default_factory=Shaping)
    constraint: Constraint | Outline | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] | None = None
    spelled_tokens: frozenset[int] = frozenset()
    logprobs: int | None = None
    logits: bool = False
    hidden_states: bool = False
    patience_s: float = DEFAULT_PATIENCE_S
    standby: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise RequestError("max_new_tokens", self.max_new_tokens, "a positive number of tokens")
        if not 0 <= self.min_tokens <= self.max_new_tokens:
            allowed = "at most as many tokens as max_new_tokens"
            raise RequestError("min_tokens", self.min_tokens, allowed)
        if self.window != "auto" and not (
            isinstance(self.window, int) and 0 <= self.window <= MAX_WINDOW
        ):
            raise RequestError(
                "window", self.window, f"auto, or 0 (plain decoding) to {MAX_WINDOW} drafted tokens"
            )
        if self.depth != "auto" and not (
            isinstance(self.depth, int) and 1 <= self.depth <= MAX_DEPTH
        ):
            raise RequestError(
                "depth", self.depth, f"auto, or 1 (wait for each) to {MAX_DEPTH} frames in flight"
            )
        if not 1 <= self.branches <= CHOICES:
            raise RequestError(
                "branches", self.branches, f"1 (the draft's first choice alone) to {CHOICES}"
            )
        if len(self.owner or "") > MAX_OWNER_CHARS:
            raise RequestError(
                "owner", self.owner, f"a name of at most {MAX_OWNER_CHARS} characters"
            )
        if not 0 <= self.patience_s <= MAX_PATIENCE_S:
            raise RequestError(
                "patience_s", self.patience_s, f"seconds from 0 to {MAX_PATIENCE_S:g}"
            )
        if len(self.stop) > MAX_STOPS or not all(
            0 < len(stop) <= MAX_STOP_CHARS for stop in self.stop
        ):
            allowed = f"at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters"
            raise RequestError("stop", self.stop, allowed)
        if len(self.stop_token_ids or ()) > MAX_STOP_TOKENS:
            raise RequestError(
                "stop_token_ids", self.stop_token_ids, f"at most {MAX_STOP_TOKENS} tokens"
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise RequestError(
                "logprobs",
                self.logprobs,
                f"how many of the likeliest tokens to tell, 0 to {MAX_LOGPROBS}",
            )

    @classmethod
    def of(cls, options: Options) -> "Request":
        """Read keyword arguments.

        Values that other programs send are understood: a ``top_k`` of -1 means all tokens, and an
        empty stop string none.

        Raises `RequestError`, `SamplingError` or `RuleError` for a value out of range.
        """
        given: dict[str, Any] = dict(options)
        seed = given.pop("seed", None)
        sampling = {
            name: given.pop(name)
            for name in ("temperature", "top_k", "top_p", "min_p")
            if name in given
        }
        if sampling.get("top_k") == -1:
            sampling["top_k"] = 0
        penalties = ("repetition_penalty", "presence_penalty", "frequency_penalty")
        shaping = {name: given.pop(name) for name in penalties if name in given}
        stop, bias = given.pop("stop", ()), given.pop("logit_bias", {})
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        stop_token_ids = given.pop("stop_token_ids", None)
        spelled = frozenset(given.pop("spelled_tokens", ()))
        return cls(
            verification=Verification.parse(given.pop("verify", "strict")),
            sampling=Sampling(**sampling, seed=secrets.randbits(32) if seed is None else seed),
            shaping=Shaping(**shaping, logit_bias=tuple(bias.items())),
            stop=tuple(each for each in stops if each),
            stop_token_ids=None if stop_token_ids is None else frozenset(stop_token_ids),
            spelled_tokens=spelled,
            **given,
        )

    def stop_ids(self, checkpoint: Checkpoint) -> frozenset[int]:
        """Return the tokens that end the text."""
        return checkpoint.eos_token_ids if self.stop_token_ids is None else self.stop_token_ids

    @property
    def copies(self) -> bool:
        """Whether the text is drafted by copying what followed the same tokens before."""
        return self.window != 0 and self.lookup is not False

    @property
    def remembered_for(self) -> str | None:
        """The owner for whose later texts something of this one is kept; None keeps nothing."""
        return self.owner if self.remember else None

    def policy(self) -> SpeculationPolicy:
        """Return a new policy: how far one generation drafts and sends ahead."""
        if self.window == 0:
            return FixedWindow(0)
        if self.depth == 1:
            return AutoWindow() if self.window == "auto" else FixedWindow(self.window)
        window = STREAM_WINDOW if self.window == "auto" else self.window
        return Streaming(window, MAX_DEPTH if self.depth == "auto" else self.depth, self.branches)

    @property
    def tokens_ahead(self) -> int:
        """Cache tokens that a session has to reserve for lost branches, beyond the text itself."""
        return MAX_SENT_AHEAD if self.window and self.depth != 1 and self.branches > 1 else 0

    def session_tokens(self, prompt_tokens: int) -> int:
        """Return the cache tokens that the session of one text needs."""
        return prompt_tokens + self.max_new_tokens + self.tokens_ahead

    def spare_tokens(self, prompt_tokens: int, checkpoint: Checkpoint) -> int:
        """Return the cache tokens for one more turn of a conversation, as far as the model's
        context reaches."""
        left = context_tokens(checkpoint) - prompt_tokens - self.max_new_tokens
        return max(0, min(self.max_new_tokens + REMARK_TOKENS, left))

    def check_prompt(self, prompt: Sequence[int], checkpoint: Checkpoint) -> None:
        """Raise `RequestError` or `PromptTooLong` if the model cannot take these token ids."""
        check_tokens(prompt, self.max_new_tokens, checkpoint)

    def check_needs_no_head(self) -> None:
        """Raise `NeedsHead` if it asks for what only a client with a head of its own can do."""
        if self.logits or self.hidden_states:
            raise NeedsHead("logits=True" if self.logits else "hidden_states=True")
        if self.verification.name == "rejection":
            raise NeedsHead("verification by rejection sampling")

    def check_vocabulary(self, checkpoint: Checkpoint) -> None:
        """Raise `RequestError` for a token that the model does not have: its bias or stop would
        have no effect."""
        named = {
            "logit_bias": [token for token, _ in self.shaping.logit_bias],
            "stop_token_ids": (self.stop_token_ids or frozenset()) - checkpoint.eos_token_ids,
        }
        for name, tokens in named.items():
            for token in tokens:
                if not 0 <= token < checkpoint.vocab_size:
                    raise RequestError(
                        name, token, f"token ids from 0 to {checkpoint.vocab_size - 1}"
                    )


def check_tokens(prompt: Sequence[int], new_tokens: int, checkpoint: Checkpoint) -> None:
    """Raise `RequestError` or `PromptTooLong` if the model cannot take these token ids and
    ``new_tokens`` more."""
    if not prompt:
        raise RequestError("prompt", "", "a prompt of at least one token")
    for token in prompt:
        if not 0 <= token < checkpoint.vocab_size:
            raise RequestError(
                "prompt token", token, f"token ids from 0 to {checkpoint.vocab_size - 1}"
            )
    limit = context_tokens(checkpoint)
    if len(prompt) + new_tokens > limit:
        raise PromptTooLong(len(prompt), new_tokens, limit)


def context_tokens(checkpoint: Checkpoint) -> int:
    """Return the longest text of a model, prompt included, that a session can hold."""
    return min(checkpoint.max_positions or MAX_SESSION_TOKENS, MAX_SESSION_TOKENS)
