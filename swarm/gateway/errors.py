"""What went wrong, in the envelope that OpenAI's clients read:
``{"error": {"message", "type", "param", "code"}}``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from swarm.chain.failures import ChainBroken, ChainSilent, SwarmIncomplete
from swarm.decoding.rules.settings import RuleError
from swarm.decoding.sampling import SamplingError
from swarm.errors import (
    DirectoryDown,
    ExitCode,
    NoBootstrap,
    OtherQuantization,
    SwarmError,
    WrongWeights,
)
from swarm.gateway.availability import NoChain
from swarm.request import PromptTooLong, RequestError
from swarm.routing.chain import MissingLayers

MAX_MESSAGE_CHARS = 1000  # what was asked for may be quoted
MAX_PROBLEM_CHARS = 800  # of a problem that a sentence of ours comes after
AGAIN = (
    "ask again later: the same seed gives the same text. What was written until now is kept only"
    " where it was streamed"
)
REPAIR_S = 10  # when a swarm that lacks peers is worth another try
# what the SDK calls otherwise than a request
FIELDS = {"max_new_tokens": "max_tokens", "prompt token": "prompt"}


class BadRequest(SwarmError):
    """A request that cannot be read or granted.

    ``param`` names the field, ``problem`` says what is wrong with it.
    """

    def __init__(
        self, problem: str, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(problem, param, code, status)
        self.problem, self.param, self.code, self.status = problem, param, code, status

    def __str__(self) -> str:
        return f"{self.param}: {self.problem}" if self.param else self.problem


class WrongKey(SwarmError):
    """The API key is missing or wrong."""

    def __str__(self) -> str:
        return "this gateway asks for an API key: send a valid one as `Authorization: Bearer KEY`"


class UnknownModel(SwarmError):
    """A model that this gateway does not serve; it does serve ``known``."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, tuple(known)

    def __str__(self) -> str:
        return f"the model {self.model!r} is not served here; ask for {' or '.join(self.known)}"


class Overloaded(SwarmError):
    """Too many generations run and wait; ``retry_after_s`` is when a place is likely to be free."""

    def __init__(self, running: int, waiting: int, retry_after_s: float) -> None:
        super().__init__(running, waiting, retry_after_s)
        self.running, self.waiting, self.retry_after_s = running, waiting, retry_after_s

    def __str__(self) -> str:
        return (
            f"{self.running} generations run here and {self.waiting} wait, which is as many as may;"
            f" try again in {math.ceil(self.retry_after_s)} s"
        )


class Crowded(SwarmError):
    """Other large bodies leave no room for one more; they did not within ``waited_s``."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(waited_s)
        self.waited_s = waited_s

    def __str__(self) -> str:
        return (
            "as many large requests as have room are being read; none was done within"
            f" {self.waited_s:g} s"
        )


class ForeignPage(SwarmError):
    """A web page of somebody else's asks, through the browser of someone who may."""

    def __init__(self, header: str, value: str) -> None:
        super().__init__(header, value)
        self.header, self.value = header, value

    def __str__(self) -> str:
        return (
            f"{self.header} {self.value!r} is not of this gateway; open it by its address, "
            "or start it with `--allow-host NAME` if this is a name of its own"
        )


@dataclass(frozen=True)
class Problem:
    """An error as HTTP tells it."""

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

    def response(self) -> web.Response:
        return web.json_response(self.body, status=self.status, headers=self.headers)


def problem_of(error: BaseException) -> Problem:
    """What to tell of an error. Of one that is a bug of ours nothing but that it happened."""
    said = " ".join(str(error).split())[:MAX_MESSAGE_CHARS]
    match error:
        case BadRequest():
            return _refused(said, error.param, error.code, error.status)
        case PromptTooLong():
            return _refused(said, None, "context_length_exceeded")
        case RequestError() | SamplingError():
            return _refused(said, FIELDS.get(error.name, error.name))
        case RuleError():
            return _refused(said, "verify")
        case WrongKey():
            return Problem(401, said, "authentication_error", "invalid_api_key")
        case ForeignPage():
            return Problem(403, said, "permission_error", "foreign_page")
        case UnknownModel():
            return _refused(said, "model", "model_not_found", 404)
        case Overloaded():
            return Problem(
                429,
                said,
                "rate_limit_error",
                "rate_limit_exceeded",
                retry_after_s=error.retry_after_s,
            )
        case Crowded():
            return Problem(
                429, said, "rate_limit_error", "rate_limit_exceeded", retry_after_s=error.waited_s
            )
        case MissingLayers() | NoChain():
            return _unavailable(said, "missing_layers")
        case SwarmIncomplete():
            happened = " ".join(error.problem.split())[:MAX_PROBLEM_CHARS]
            return _unavailable(f"{happened}; {AGAIN}", "swarm_incomplete")
        case ChainBroken() | ChainSilent():
            return _unavailable(said, "chain_broken")
        case WrongWeights() | OtherQuantization():
            return _unavailable(said, "wrong_weights")
        case NoBootstrap() | DirectoryDown():
            return _unavailable(said, "no_directory")
        case SwarmError() if error.exit_code is not ExitCode.LOCAL:  # that speaks of files here
            return Problem(500, said, "server_error")
        case _:
            return Problem(
                500, "the gateway failed; its log says more", "server_error", "internal_error"
            )


def _refused(
    message: str, param: str | None, code: str | None = None, status: int = 400
) -> Problem:
    return Problem(status, message, "invalid_request_error", code, param)


def _unavailable(message: str, code: str) -> Problem:
    return Problem(503, message, "service_unavailable_error", code, retry_after_s=REPAIR_S)
