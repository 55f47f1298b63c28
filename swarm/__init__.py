"""What a client imports, and the language that clients and peers speak.

The names listed in ``__all__`` are the SDK's; everything else may change with any version.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarm.chain.failures import ChainBroken, ChainSilent, SwarmIncomplete
    from swarm.client.batch import BatchFailed
    from swarm.client.client import ClientOptions, SwarmClient
    from swarm.client.conversation import Message, NoChatTemplate, TemplateRefuses
    from swarm.client.generation import GenerationStream
    from swarm.client.scoring import Reading
    from swarm.client.sync import BlockingClient
    from swarm.config import Network, load_network
    from swarm.decoding.rules.settings import RuleError
    from swarm.decoding.sampling import SamplingError
    from swarm.errors import (
        ConfigError,
        DamagedModel,
        DirectoryDown,
        IdentityError,
        ModelNotFound,
        NoBootstrap,
        OtherQuantization,
        SwarmError,
        UnsupportedModel,
        WrongWeights,
    )
    from swarm.hf.model import SwarmModel
    from swarm.hf.outputs import SwarmGenerateOutput
    from swarm.hf.settings import UnsupportedArgument
    from swarm.identity import Identity
    from swarm.model.draft import DraftMismatch
    from swarm.outputs import Generation, Piece, Stats
    from swarm.request import Options, PromptTooLong, RequestError
    from swarm.routing.chain import MissingLayers

__version__ = "0.1.0"
__all__ = [
    "BatchFailed",
    "BlockingClient",
    "ChainBroken",
    "ChainSilent",
    "ClientOptions",
    "ConfigError",
    "DamagedModel",
    "DirectoryDown",
    "DraftMismatch",
    "Generation",
    "GenerationStream",
    "Identity",
    "IdentityError",
    "Message",
    "MissingLayers",
    "ModelNotFound",
    "Network",
    "NoBootstrap",
    "NoChatTemplate",
    "Options",
    "OtherQuantization",
    "Piece",
    "PromptTooLong",
    "Reading",
    "RequestError",
    "RuleError",
    "SamplingError",
    "Stats",
    "SwarmClient",
    "SwarmError",
    "SwarmGenerateOutput",
    "SwarmIncomplete",
    "SwarmModel",
    "TemplateRefuses",
    "UnsupportedArgument",
    "UnsupportedModel",
    "WrongWeights",
    "__version__",
    "load_network",
]

# Most of them come with torch and transformers: each is imported when it is asked for.
_HOMES = {
    "swarm.client.batch": ("BatchFailed",),
    "swarm.client.sync": ("BlockingClient",),
    "swarm.chain.failures": ("ChainBroken", "ChainSilent", "SwarmIncomplete"),
    "swarm.client.client": ("ClientOptions", "SwarmClient"),
    "swarm.config": ("Network", "load_network"),
    "swarm.client.conversation": ("Message", "NoChatTemplate", "TemplateRefuses"),
    "swarm.decoding.rules.settings": ("RuleError",),
    "swarm.decoding.sampling": ("SamplingError",),
    "swarm.errors": (
        *(
            "ConfigError",
            "DamagedModel",
            "DirectoryDown",
            "IdentityError",
            "ModelNotFound",
            "NoBootstrap",
        ),
        *("OtherQuantization", "SwarmError", "UnsupportedModel", "WrongWeights"),
    ),
    "swarm.client.generation": ("GenerationStream",),
    "swarm.hf.settings": ("UnsupportedArgument",),
    "swarm.hf.model": ("SwarmModel",),
    "swarm.hf.outputs": ("SwarmGenerateOutput",),
    "swarm.identity": ("Identity",),
    "swarm.model.draft": ("DraftMismatch",),
    "swarm.client.scoring": ("Reading",),
    "swarm.request": ("Options", "PromptTooLong", "RequestError"),
    "swarm.outputs": ("Generation", "Piece", "Stats"),
    "swarm.routing.chain": ("MissingLayers",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if home := _HOME_OF.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'swarm' has no attribute {name!r}")
