"""Errors that a user may see: one sentence each, which says what to do next, and what they mean to
a script."""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How a command ends, as its exit code."""

    DONE = 0
    FAILED = 1  # in a way that none of the others names
    USAGE = 2  # what was asked for, or configured, cannot be
    UNREACHABLE = 3  # no way into the network
    INCOMPLETE = 4  # the swarm is there, but does not serve the whole model now
    LOCAL = 5  # a model, key or other file here, or this computer, is not what is needed
    HUNG_UP = 129  # its terminal was closed: SIGHUP
    STOPPED = 130  # by Ctrl-C: SIGINT
    TERMINATED = 143  # by SIGTERM


class SwarmError(Exception):
    """Base of every error that is shown as one sentence, without a stack trace."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED  # of a command that it ends


class ConfigError(SwarmError):
    """A setting is wrong.

    `field` names it, `problem` says what is wrong with it and what would be right.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}."


class IdentityError(SwarmError):
    """A key file or peer id cannot be used.

    `subject` is the file or the id, `problem` says why and what to do.
    """

    exit_code = ExitCode.LOCAL

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(subject, problem)
        self.subject = subject
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}."


class NoBootstrap(SwarmError):
    """No bootstrap node answered; `tried` holds the addresses asked, none if none is configured."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, tried: tuple[str, ...] = ()) -> None:
        super().__init__(tried)
        self.tried = tried

    def __str__(self) -> str:
        if not self.tried:
            return (
                "No bootstrap node is configured: name one with --bootstrap, SWARM_BOOTSTRAP or"
                " bootstrap.toml, or start your own with `swarm-peer bootstrap`."
            )
        return (
            f"No bootstrap node answers (tried {', '.join(self.tried)}): check that it runs and"
            " that its address and your network are right, and in a private swarm its key, too."
        )


class CannotListen(SwarmError):
    """An address of this computer is taken, or not ours to take; `option` names what would change
    it."""

    exit_code = ExitCode.LOCAL

    def __init__(self, host: str, port: int, why: str, option: str = "--port") -> None:
        super().__init__(host, port, why, option)
        self.host = host
        self.port = port
        self.why = why
        self.option = option

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host}:{self.port} ({self.why}); give another {self.option}, or"
            " 0 for any"
        )


class DirectoryDown(SwarmError):
    """The DHT cannot be used right now; `reason` says why.

    Often passes by itself, so owners may try again.
    """

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The swarm's directory is not usable: {self.reason}."


class ClockOff(DirectoryDown):
    """Our clock and other nodes' are too far apart: either side drops the other's records.

    Fields: `ahead_s` (by how much ours is ahead; negative if it is behind), `nodes` (how many told
    their time).
    """

    def __init__(self, ahead_s: float, nodes: int) -> None:
        super().__init__("this computer's clock and the others' differ")
        self.ahead_s = ahead_s
        self.nodes = nodes

    def __str__(self) -> str:
        way = "ahead of" if self.ahead_s > 0 else "behind"
        others = (
            "that of the only node asked" if self.nodes == 1 else f"those of {self.nodes} nodes"
        )
        return (
            f"This computer's clock is {abs(self.ahead_s):.0f} s {way} {others}, so that they do"
            " not see each other's records: set it, for example by `sudo timedatectl set-ntp"
            " true`, and the rest goes on by itself."
        )


class InvalidRecord(SwarmError):
    """A record of the DHT breaks the schema, or is not ours to publish; `reason` names the rule."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"Not a valid directory record: {self.reason}."


class ModelNotFound(SwarmError):
    """There is no readable checkpoint under this name."""

    exit_code = ExitCode.LOCAL

    def __init__(
        self, model: str, why: str = "it is neither a folder nor a model on the hub"
    ) -> None:
        super().__init__(model, why)
        self.model = model
        self.why = why

    def __str__(self) -> str:
        return (
            f"Model {self.model!r} was not found: {self.why}. Give a checkpoint folder or a Hugging"
            " Face model id."
        )


class DamagedModel(SwarmError):
    """A file of the checkpoint is damaged or missing.

    `file` is its name, `why` says what is wrong with it.
    """

    exit_code = ExitCode.LOCAL

    def __init__(self, model: str, file: str, why: str) -> None:
        super().__init__(model, file, why)
        self.model = model
        self.file = file
        self.why = why

    def __str__(self) -> str:
        return (
            f"Model {self.model!r} cannot be read: {self.file} {self.why}. Fetch or copy that file"
            " again."
        )


class UnsupportedModel(SwarmError):
    """The checkpoint is there, but cannot be served layer by layer."""

    exit_code = ExitCode.LOCAL

    def __init__(self, model: str, why: str) -> None:
        super().__init__(model, why)
        self.model = model
        self.why = why

    def __str__(self) -> str:
        return f"Model {self.model!r} is not supported: {self.why}. Choose another checkpoint."


class SpanError(SwarmError):
    """A span was asked for layers or positions that do not fit; a fault of the caller, never of the
    model.

    Fields: `first`, `last` (the span's layers), `problem` (what does not fit, with the numbers).
    """

    exit_code = ExitCode.USAGE

    def __init__(self, first: int, last: int, problem: str) -> None:
        super().__init__(first, last, problem)
        self.first = first
        self.last = last
        self.problem = problem

    def __str__(self) -> str:
        return f"The span of layers [{self.first}, {self.last}) cannot run this: {self.problem}."


class WrongWeights(SwarmError):
    """The swarm serves a model of this name, but other weights."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, model: str, ours: str, theirs: Sequence[str]) -> None:
        super().__init__(model, ours, theirs)
        self.model, self.ours, self.theirs = model, ours, tuple(theirs)

    def __str__(self) -> str:
        theirs = ", ".join(fingerprint[:12] for fingerprint in self.theirs)
        return (
            f"the swarm serves {self.model} with other weights than yours (fingerprint {theirs},"
            f" yours is {self.ours[:12]}); use the same model folder or revision as its peers"
        )


class OtherQuantization(SwarmError):
    """The swarm serves these weights, but stored another way.

    ``served`` are the ways that there are.
    """

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, model: str, asked: str, served: Sequence[str]) -> None:
        super().__init__(model, asked, served)
        self.model, self.asked, self.served = model, asked, tuple(served)

    def __str__(self) -> str:
        asked, *served = (
            "as they are" if each == "none" else f"in {each}" for each in (self.asked, *self.served)
        )
        return (
            f"the swarm serves the weights of {self.model} not {asked}, but {' and '.join(served)};"
            f" if other texts will do, ask for that: --quantization {self.served[0]}"
        )
