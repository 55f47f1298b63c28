"""Errors of the gateway, and the replies to all errors, as OpenAI's clients read them.

The body of such a reply is ``{"error": {"message", "type", "param", "code"}}``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from swarm.errors import (
    LocalError,
    NetworkUnreachable,
    RequestError,
    RuleError,
    SwarmError,
    SwarmIncomplete,
    SwarmUnavailable,
    UsageError,
)

MAX_MESSAGE_CHARS = 1000  # a message may quote the request
MAX_QUOTED_CHARS = 4 * MAX_MESSAGE_CHARS  # of a problem that are looked at
MAX_PROBLEM_CHARS = 800  # of a problem that a sentence of ours follows
AGAIN = (
    "ask again later: the same seed gives the same text. The text so far is not kept, unless it was"
    " streamed"
)
REPAIR_S = 10  # after which a swarm that lacks peers is worth another try
# fields of a request that have another name in the SDK
FIELDS = {"max_new_tokens": "max_tokens", "prompt token": "prompt"}
# OpenAI's names for kinds of errors, by status; other ones below 500 are invalid requests
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


@dataclass(eq=False)
class BadRequest(UsageError):
    """A request that cannot be read or granted.

    Attributes:
        param: the field that is wrong; `problem` says why.
        code: `code` of the answer.
        status: of the answer; HTTP has several for invalid bodies.
    """

    problem: str
    param: str | None = None
    code: str | None = None
    status: int = 400

    def __str__(self) -> str:
        return f"{self.param}: {self.problem}" if self.param else self.problem


class WrongKey(UsageError):
    """The API key is missing or wrong."""

    http_status = 401
    api_code = "invalid_api_key"

    def __str__(self) -> str:
        return "this gateway asks for an API key: send a valid one as `Authorization: Bearer KEY`"


@dataclass(eq=False)
class ForeignPage(UsageError):
    """A page of another site sends a request, through the browser of a legitimate user."""

    http_status = 403
    api_code = "foreign_page"

    header: str
    value: str

    def __str__(self) -> str:
        return (
            f"{self.header} {self.value!r} is not of this gateway; open it by its address, "
            "or start it with `--allow-host NAME` if this is a name of its own"
        )


@dataclass(eq=False)
class UnknownModel(UsageError):
    """This gateway does not serve `model`; it serves those of `known`."""

    http_status = 404
    api_code = "model_not_found"

    model: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"the model {self.model!r} is not served here; ask for {' or '.join(self.known)}"


@dataclass(eq=False)
class Busy(SwarmUnavailable):
    """The gateway has no capacity; it is likely to have some after `retry_after_s`."""

    http_status = 429
    api_code = "rate_limit_exceeded"

    retry_after_s: float


@dataclass(eq=False)
class Overloaded(Busy):
    """The maximum number of generations run and wait."""

    running: int
    waiting: int

    def __str__(self) -> str:
        return (
            f"{self.running} generations run here and {self.waiting} wait, which is the maximum;"
            f" try again in {math.ceil(self.retry_after_s)} s"
        )


class Crowded(Busy):
    """Other large bodies left no memory for this one while it waited for `retry_after_s`."""

    def __str__(self) -> str:
        return (
            "the maximum number of large requests is being read; none was done within"
            f" {self.retry_after_s:g} s"
        )


@dataclass(frozen=True)
class ErrorReply:
    """The reply to a request that failed."""

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        named = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s is not None:
            named["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return named

    def response(self, envelope: "Envelope | None" = None) -> web.Response:
        """Return the response, in OpenAI's envelope or another one."""
        body = self.body if envelope is None else envelope(self)
        return web.json_response(body, status=self.status, headers=self.headers)


Envelope = Callable[[ErrorReply], dict[str, Any]]


def error_reply(error: BaseException) -> ErrorReply:
    """Return the reply to an error; that to a bug of ours only says that it happened."""
    if not isinstance(error, SwarmError) or isinstance(error, LocalError):
        return ErrorReply(
            500, "the gateway failed; its log says more", "server_error", LocalError.api_code
        )
    message = _in_one_line(str(error))[:MAX_MESSAGE_CHARS]
    status, code, retry_after_s = error.http_status, error.api_code, None
    match error:
        case BadRequest():
            status, code = error.status, error.code
        case Busy():
            retry_after_s = error.retry_after_s
        case SwarmUnavailable() | NetworkUnreachable():
            retry_after_s = REPAIR_S
    if isinstance(error, SwarmIncomplete):
        happened = _in_one_line(error.problem)[:MAX_PROBLEM_CHARS]
        message = f"{happened}; {AGAIN}"
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorReply(status, message, kind, code, _param(error), retry_after_s)


def _in_one_line(text: str) -> str:
    """Return the beginning of a text without line ends and control characters.

    The text may quote a request of many megabytes.
    """
    words = " ".join(text[:MAX_QUOTED_CHARS].split())
    return "".join(char if char.isprintable() else "?" for char in words)


def _param(error: SwarmError) -> str | None:
    """Return the field of the request that caused an error."""
    match error:
        case BadRequest():
            return error.param
        case RequestError():
            return FIELDS.get(error.name, error.name)
        case RuleError():
            return "verify"
        case UnknownModel():
            return "model"
    return None
