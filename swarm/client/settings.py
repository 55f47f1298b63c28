"""How a client is set up, checked once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import TypedDict

from swarm.client.head_choice import HeadChoice, check_head_choice
from swarm.config import Network
from swarm.errors import ConfigError
from swarm.identity import Identity
from swarm.model.compute import AUTO, ComputeOptions
from swarm.model.quantization import named
from swarm.wire.messages import MAX_CLIENTS

DEFAULT_AUDIT_RATE = 0.01


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of `SwarmClient`, which says what they mean; all may be left out."""

    draft: str | None
    key_patterns: Mapping[str, str]
    bootstrap: Sequence[str]
    network: Network | None
    link_ms: float
    block: Collection[str]
    allow: Collection[str]
    identity: Identity | None
    cache: Path | None
    audit_rate: float
    quantization: str | None
    speaks_for: int
    head: HeadChoice
    device: str
    draft_device: str
    draft_dtype: str
    draft_vocab: int | str


@dataclass(frozen=True)
class ClientSettings:
    """The arguments of `SwarmClient`, which says what they mean.

    Raises:
        ConfigError: for an unknown quantization, choice of the head, device, dtype or draft
            vocabulary, an audit rate that is no share, or a number of clients out of range.
    """

    model: str
    draft: str | None = None
    key_patterns: Mapping[str, str] = field(default_factory=dict)
    bootstrap: Sequence[str] = ()
    network: Network | None = None
    link_ms: float = 0.0
    block: Collection[str] = ()
    allow: Collection[str] = ()
    identity: Identity | None = None
    cache: Path | None = None
    audit_rate: float = DEFAULT_AUDIT_RATE
    quantization: str | None = None
    speaks_for: int = 1
    head: HeadChoice = "auto"
    device: str = AUTO
    draft_device: str = AUTO
    draft_dtype: str = AUTO
    draft_vocab: int | str = AUTO

    def __post_init__(self) -> None:
        if not 1 <= self.speaks_for <= MAX_CLIENTS:
            raise ConfigError(
                "speaks_for",
                f"{self.speaks_for} is no number of clients; give one from 1 to {MAX_CLIENTS}",
            )
        if not 0 <= self.audit_rate <= 1:
            raise ConfigError(
                "audit_rate",
                f"{self.audit_rate} is no share of all texts; give a number from 0 to 1",
            )
        check_head_choice(self.head)
        named(self.quantization)
        _ = self.compute

    @property
    def compute(self) -> ComputeOptions:
        """Where the client computes."""
        return ComputeOptions(self.device, self.draft_device, self.draft_dtype, self.draft_vocab)
