"""The base of all errors, and the five below it that decide exit codes and HTTP statuses."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How a command ends, as its exit code."""

    DONE = 0
    FAILED = 1  # in a way that none of the others names
    USAGE = 2  # the request or the configuration is invalid
    UNREACHABLE = 3  # no way into the network
    INCOMPLETE = 4  # the swarm is there, but does not serve the whole model now
    LOCAL = 5  # a model, key or other file here, or this computer, is unsuitable
    HUNG_UP = 129  # its terminal was closed: SIGHUP
    STOPPED = 130  # by Ctrl-C: SIGINT
    TERMINATED = 143  # by SIGTERM


@dataclass(eq=False)
class SwarmError(Exception):
    """Base of every error that is shown as one sentence, without a stack trace.

    Raise a class below one of the five bases. `args` are the values of the constructor's fields,
    so that errors can be pickled and copied.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED  # of a command that it ends
    http_status: ClassVar[int] = 500  # of the gateway's answer
    api_code: ClassVar[str | None] = None  # `code` in the gateway's answer

    def __post_init__(self) -> None:
        self.args = tuple(getattr(self, each.name) for each in fields(self) if each.init)


class UsageError(SwarmError):
    """The request or the configuration is invalid. Ask for something else."""

    exit_code = ExitCode.USAGE
    http_status = 400


class LocalError(SwarmError):
    """A file, a key or this computer is unsuitable. Put it right here.

    The gateway does not repeat the sentence, which may name paths: its readers are strangers.
    """

    exit_code = ExitCode.LOCAL
    api_code = "internal_error"


class NetworkUnreachable(SwarmError):
    """There is no way into the network. Check the addresses and the connection."""

    exit_code = ExitCode.UNREACHABLE
    http_status = 503
    api_code = "no_directory"


class SwarmUnavailable(SwarmError):
    """The network is there, but does not serve this now. Try again later."""

    exit_code = ExitCode.INCOMPLETE
    http_status = 503
    api_code = "chain_broken"


class RemoteViolation(SwarmError):
    """The other side of a link broke its word: a fault of theirs, and no reason to trust them."""

    http_status = 502
    api_code = "remote_violation"
