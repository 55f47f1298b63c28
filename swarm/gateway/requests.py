"""The bodies of requests: parsed, bounded, and turned into options of the SDK.

Unknown fields are refused, because a misspelt one would silently change the text. Fields of
OpenAI's that have no effect here (`IGNORED`) are dropped. Fields that would change the text in a
way that we do not support (`REFUSED`) are accepted only with values that change nothing.

Some clients send every field that they know, with values that stand for the default: -1 tokens, an
empty stop string. These count as the default. A whole number may be written as 4096.0.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from swarm.decoding.sampling import MAX_SEED
from swarm.decoding.shaping import MAX_BIASES
from swarm.gateway.bounded_json import read_object
from swarm.gateway.errors import BadRequest
from swarm.request import MAX_LOGPROBS, Depth, Options, WindowSize
from swarm.wire.messages import MAX_SESSION_TOKENS

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_CHOICES = 16  # texts that one request may ask for
MAX_MESSAGES = 2048
MAX_WHOLE = (1 << 63) - 1  # of any whole number but a seed: no arithmetic on huge integers
MAX_PARAM_CHARS = 100  # of the name of a field, which may be any string
MAX_KEY_CHARS = 32  # of a wrong key that an error quotes
TEXT_TOKENS = 16  # new tokens of a completion by default, as in OpenAI's API
CHAT_TOKENS = 256  # likewise of a chat; each reserves cache on all peers

IGNORED = frozenset(
    {
        *("user", "safety_identifier", "metadata", "store", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
    }
)
PENALTY = "use repetition_penalty"
# values that change nothing, and what to do instead
REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "presence_penalty": ((0,), PENALTY),
    "frequency_penalty": ((0,), PENALTY),
    "best_of": ((0, 1), "ask for several texts with n"),
    "top_logprobs": ((0,), "say how many with logprobs"),
    "echo": ((False,), "the prompt is yours already"),
    "suffix": (("",), "text is only added at the end"),
    "min_p": ((0,), "use top_p or top_k"),
    "min_tokens": ((0,), "ban tokens with logit_bias"),
    "ignore_eos": ((False,), "ban the end of text with logit_bias"),
    "tools": (([],), "describe them in a message"),
    "tool_choice": (("none", "auto"), "no tools are called"),
    "functions": (([],), "describe them in a message"),
    "function_call": (("none", "auto"), "no functions are called"),
    "response_format": (({"type": "text"},), "ask for the format in a message"),
    "modalities": ((["text"],), "only text is generated"),
    "audio": ((), "only text is generated"),
    "prediction": ((), "the draft model predicts already"),
    "web_search_options": ((), "nothing is searched"),
    "reasoning_effort": ((), "say in a message how much to think"),
    "verbosity": ((), "say in a message how much to write"),
}


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _whole(value: object) -> object:
    """Read a whole number as `_integer` does, clamped to `MAX_WHOLE`.

    Only a field without a bound accepts `MAX_WHOLE` (``top_k``: all tokens); others refuse it by
    their own bound.
    """
    value = _integer(value)
    return max(-MAX_WHOLE, min(value, MAX_WHOLE)) if type(value) is int else value


def _integer(value: object) -> object:
    """Read 4096.0 as 4096: some languages have only one type of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _count(value: object) -> object:
    """Read a number of tokens; 0 and -1 set no limit, as in other servers."""
    value = _whole(value)
    return None if type(value) is int and value in (-1, 0) else value


def _seed(value: object) -> object:
    """Read any integer, however large; -1 stands for a random seed, as in other servers."""
    value = _integer(value)
    if type(value) is not int:
        return value
    return None if value == -1 else value & MAX_SEED


def _likely(value: object) -> object:
    """Read a completion's ``logprobs``, a number of tokens; false, as in a chat, stands for none.

    Raise ValueError for true, which gives no number.
    """
    if value is True:
        raise ValueError(
            f"give the number of most likely tokens to return, from 0 to {MAX_LOGPROBS}"
        )
    return None if value is False else _whole(value)


def _switch(value: object) -> object:
    """Read a chat's ``logprobs``; 0 stands for false, as in a completion."""
    return False if type(value) is int and value == 0 else value


def _prompts(value: object) -> object:
    """Read one prompt, text or token ids, as a list of one prompt."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    return value


def _plausible(prompts: list[str | list[int]]) -> list[str | list[int]]:
    """Return the prompts, or raise ValueError for a token id beyond `MAX_WHOLE`.

    Smaller ids that the model does not have are refused, and quoted, where the model is known.
    """
    for ids in prompts:
        if isinstance(ids, list) and ids and max(max(ids), -min(ids)) > MAX_WHOLE:
            raise ValueError(f"no token id is beyond {MAX_WHOLE}")
    return prompts


def _token_ids(biases: dict[str, float]) -> dict[str, float]:
    """Return the biases, or raise ValueError for a key that is no token id."""
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ValueError(f"{key[:MAX_KEY_CHARS]!r} is no token id")
    return biases


def _text(value: object) -> object:
    """Read a message's content, whose parts are joined by newlines."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return value
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        for part in value
    ]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError('content parts have to be like {"type": "text", "text": "..."}')
    return "\n".join(map(str, texts))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        """Drop fields that are null."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class ChatMessage(_Part):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text)] = ""

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, fields: Any) -> Any:
        """Drop empty fields, which answers sent back as messages have, and the name.

        Chat templates do not use names.
        """
        if not isinstance(fields, dict):
            return fields
        return {
            key: value
            for key, value in fields.items()
            if key != "name" and value not in (None, [], "")
        }


class StreamOptions(_Part):
    include_usage: bool = False
    include_obfuscation: bool = False  # no effect: links are encrypted, or the reader's own


Whole = Annotated[int, BeforeValidator(_whole)]
NewTokens = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SESSION_TOKENS)] | None,
    BeforeValidator(_count),
]


class Body(_Part):
    """The fields that chats and completions have in common.

    None stands for the default of the SDK, if nothing else is said.
    """

    model: str = Field(min_length=1, max_length=512)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Whole = Field(default=1, ge=1, le=MAX_CHOICES)
    max_tokens: NewTokens = None
    seed: Annotated[int | None, BeforeValidator(_seed)] = None
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = 1.0
    top_k: Whole = 0
    repetition_penalty: float = 1.0
    logit_bias: Annotated[dict[str, float], AfterValidator(_token_ids)] = Field(
        default={}, max_length=MAX_BIASES
    )
    stop: Annotated[list[str], BeforeValidator(_listed)] = []
    verify: str = Field(default="strict", max_length=256)
    window: Annotated[WindowSize, BeforeValidator(_whole)] = "auto"
    depth: Annotated[Depth, BeforeValidator(_whole)] = "auto"
    explain: bool = False  # return every token's fate

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def prompts(self) -> int:
        """The number of prompts."""
        return 1

    @property
    def texts(self) -> int:
        """The number of requested texts."""
        return self.prompts * self.n

    @property
    def new_tokens(self) -> tuple[int | None, int]:
        """The requested maximum, if any, and the default, which the model's context may cut."""
        return self.max_tokens, TEXT_TOKENS

    @property
    def num_logprobs(self) -> int | None:
        """`Options.logprobs`: chats and completions each have it in a field of their own."""
        return None

    @property
    def keep(self) -> bool:
        """`Options.keep`: whether another request is likely to continue this text."""
        return False

    def options(self, number: int) -> Options:
        """Return the options of the ``number``-th text; texts of a request differ in seeds."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": None if self.seed is None else (self.seed + number) & MAX_SEED,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": {int(token): bias for token, bias in self.logit_bias.items()},
            "stop": self.stop,
            "verify": self.verify,
            "window": self.window,
            "depth": self.depth,
            "logprobs": self.num_logprobs,
            "keep": self.keep,
        }


class ChatBody(Body):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: NewTokens = None
    logprobs: Annotated[bool, BeforeValidator(_switch)] = False
    top_logprobs: Whole | None = Field(default=None, ge=0, le=MAX_LOGPROBS)

    @model_validator(mode="after")
    def _agrees(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if (
            self.max_tokens
            and self.max_completion_tokens
            and self.max_tokens != self.max_completion_tokens
        ):
            raise ValueError("max_tokens and max_completion_tokens differ; give only one of them")
        return self

    @property
    def new_tokens(self) -> tuple[int | None, int]:
        return self.max_completion_tokens or self.max_tokens, CHAT_TOKENS

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def keep(self) -> bool:
        return self.n == 1


class TextBody(Body):
    """``POST /v1/completions``."""

    prompt: Annotated[
        list[str | list[int]], BeforeValidator(_prompts), AfterValidator(_plausible)
    ] = Field(min_length=1, max_length=MAX_CHOICES)
    logprobs: Annotated[int | None, BeforeValidator(_likely)] = Field(
        default=None, ge=0, le=MAX_LOGPROBS
    )

    @property
    def prompts(self) -> int:
        return len(self.prompt)

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs


B = TypeVar("B", bound=Body)


def read(body: bytes, kind: type[B]) -> B:
    """Parse a body.

    Raise `BadRequest`, which names the field, for anything that is not a body of this kind.
    """
    fields = read_object(body.removeprefix(BYTE_ORDER_MARK))
    for name, value in list(fields.items()):
        if name not in kind.model_fields and (name in IGNORED or _changes_nothing(name, value)):
            del fields[name]
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _first(error) from None


def _changes_nothing(name: str, value: object) -> bool:
    """Tell whether a field may be dropped. Raise `BadRequest` for an unsupported value."""
    if name not in REFUSED:
        return False
    harmless, instead = REFUSED[name]
    if value is not None and value not in harmless:
        raise BadRequest(
            f"this is not supported; leave it out ({instead})", name, "unsupported_parameter"
        )
    return True


def _first(error: ValidationError) -> BadRequest:
    """Return the first error, as one sentence."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in wrong["loc"]
    ).lstrip(".")
    where = where[:MAX_PARAM_CHARS]
    if wrong["type"] == "extra_forbidden":
        return BadRequest(
            "this field is unknown; docs/gateway.md lists all fields", where, "unknown_parameter"
        )
    problem = wrong["msg"].removeprefix("Value error, ")
    return BadRequest(problem[:1].lower() + problem[1:], where or None)
