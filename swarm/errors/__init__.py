"""What users and programs are told when something fails: one tree, five bases.

    SwarmError
    ├── UsageError           the request or the configuration is invalid
    ├── LocalError           a file, a key or this computer is unsuitable
    ├── NetworkUnreachable   there is no way into the network
    ├── SwarmUnavailable     the network is there, but does not serve this now
    └── RemoteViolation      the other side broke its word

An error is a dataclass: its fields are the facts, its text is one sentence that says what to do
next. Its base decides how a command ends (`exit_code`) and what the gateway answers
(`http_status`); the few classes that differ say so themselves. The public errors are all here;
errors that one room raises for itself stand in that room, below one of the same bases.
"""

from swarm.errors.bases import (
    ExitCode,
    LocalError,
    NetworkUnreachable,
    RemoteViolation,
    SwarmError,
    SwarmUnavailable,
    UsageError,
)
from swarm.errors.local import (
    CannotListen,
    DamagedModel,
    DraftMismatch,
    IdentityError,
    MissingExtra,
    ModelNotFound,
    NoChatTemplate,
    UnsupportedModel,
)
from swarm.errors.remote import Implausible, InvalidRecord
from swarm.errors.unavailable import (
    BatchFailed,
    ChainBroken,
    ChainSilent,
    MissingLayers,
    OtherQuantization,
    SwarmIncomplete,
    WrongWeights,
)
from swarm.errors.unreachable import (
    ClockOff,
    DirectoryDown,
    NoBootstrap,
)
from swarm.errors.usage import (
    ConfigError,
    ConstraintFailed,
    NeedsHead,
    PromptTooLong,
    RequestError,
    RuleError,
    SamplingError,
    SpanError,
    TemplateRefuses,
    UnsupportedArgument,
)

__all__ = [
    "BatchFailed",
    "CannotListen",
    "ChainBroken",
    "ChainSilent",
    "ClockOff",
    "ConfigError",
    "ConstraintFailed",
    "DamagedModel",
    "DirectoryDown",
    "DraftMismatch",
    "ExitCode",
    "IdentityError",
    "Implausible",
    "InvalidRecord",
    "LocalError",
    "MissingExtra",
    "MissingLayers",
    "ModelNotFound",
    "NeedsHead",
    "NetworkUnreachable",
    "NoBootstrap",
    "NoChatTemplate",
    "OtherQuantization",
    "PromptTooLong",
    "RemoteViolation",
    "RequestError",
    "RuleError",
    "SamplingError",
    "SpanError",
    "SwarmError",
    "SwarmIncomplete",
    "SwarmUnavailable",
    "TemplateRefuses",
    "UnsupportedArgument",
    "UnsupportedModel",
    "UsageError",
    "WrongWeights",
]
