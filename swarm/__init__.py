"""What a client imports, and the language that clients and peers speak.

The names listed in ``__all__`` are the SDK's; everything else may change with any version.
"""

import importlib
from typing import TYPE_CHECKING

from swarm.util.torch_environment import prepare_torch

if TYPE_CHECKING:
    from swarm.client.client import SwarmClient
    from swarm.client.conversation import Message
    from swarm.client.generation import GenerationStream
    from swarm.client.scoring import Reading
    from swarm.client.settings import ClientOptions
    from swarm.client.sync import BlockingClient
    from swarm.config import Network, load_network
    from swarm.decoding.constraint import Constraint
    from swarm.decoding.outline import Outline, Trigger
    from swarm.errors import (
        BatchFailed,
        ChainBroken,
        ChainSilent,
        ConfigError,
        DamagedModel,
        DirectoryDown,
        DraftMismatch,
        IdentityError,
        LocalError,
        MissingLayers,
        ModelNotFound,
        NeedsHead,
        NetworkUnreachable,
        NoBootstrap,
        NoChatTemplate,
        OtherQuantization,
        PromptTooLong,
        RemoteViolation,
        RequestError,
        RuleError,
        SamplingError,
        SwarmError,
        SwarmIncomplete,
        SwarmUnavailable,
        TemplateRefuses,
        UnsupportedArgument,
        UnsupportedModel,
        UsageError,
        WrongWeights,
    )
    from swarm.hf.model import SwarmModel
    from swarm.hf.outputs import SwarmGenerateOutput
    from swarm.identity import Identity
    from swarm.outputs import Generation, Piece, Stats
    from swarm.request import Options

__version__ = "0.1.0"
__all__ = [
    "BatchFailed",
    "BlockingClient",
    "ChainBroken",
    "ChainSilent",
    "ClientOptions",
    "ConfigError",
    "Constraint",
    "DamagedModel",
    "DirectoryDown",
    "DraftMismatch",
    "Generation",
    "GenerationStream",
    "Identity",
    "IdentityError",
    "LocalError",
    "Message",
    "MissingLayers",
    "ModelNotFound",
    "NeedsHead",
    "Network",
    "NetworkUnreachable",
    "NoBootstrap",
    "NoChatTemplate",
    "Options",
    "OtherQuantization",
    "Outline",
    "Piece",
    "PromptTooLong",
    "Reading",
    "RemoteViolation",
    "RequestError",
    "RuleError",
    "SamplingError",
    "Stats",
    "SwarmClient",
    "SwarmError",
    "SwarmGenerateOutput",
    "SwarmIncomplete",
    "SwarmModel",
    "SwarmUnavailable",
    "TemplateRefuses",
    "Trigger",
    "UnsupportedArgument",
    "UnsupportedModel",
    "UsageError",
    "WrongWeights",
    "__version__",
    "load_network",
]

# Most of them come with torch and transformers: each is imported when it is asked for.
_HOMES = {
    "swarm.client.sync": ("BlockingClient",),
    "swarm.client.client": ("SwarmClient",),
    "swarm.client.settings": ("ClientOptions",),
    "swarm.config": ("Network", "load_network"),
    "swarm.decoding.constraint": ("Constraint",),
    "swarm.decoding.outline": ("Outline", "Trigger"),
    "swarm.client.conversation": ("Message",),
    "swarm.errors": (
        "BatchFailed",
        "ChainBroken",
        "ChainSilent",
        "ConfigError",
        "DamagedModel",
        "DirectoryDown",
        "DraftMismatch",
        "IdentityError",
        "LocalError",
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
        "SwarmError",
        "SwarmIncomplete",
        "SwarmUnavailable",
        "TemplateRefuses",
        "UnsupportedArgument",
        "UnsupportedModel",
        "UsageError",
        "WrongWeights",
    ),
    "swarm.client.generation": ("GenerationStream",),
    "swarm.hf.model": ("SwarmModel",),
    "swarm.hf.outputs": ("SwarmGenerateOutput",),
    "swarm.identity": ("Identity",),
    "swarm.client.scoring": ("Reading",),
    "swarm.request": ("Options",),
    "swarm.outputs": ("Generation", "Piece", "Stats"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

prepare_torch()  # here, because every program of ours imports this package before torch


def __getattr__(name: str) -> object:
    if home := _HOME_OF.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'swarm' has no attribute {name!r}")
