"""What a head is made from, for how long, and how it comes out."""

from dataclasses import dataclass, field
from pathlib import Path

from swarm.config import Network
from swarm.identity import Identity


@dataclass(frozen=True)
class Writing:
    """How texts are written.

    Attributes:
        max_new_tokens: of a text.
        temperature: 0 is greedy.
        seed: of the sampling.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class DistillSettings:
    """How to make a head.

    Attributes:
        model: the target, a folder or hub id.
        out: the folder of the head. Texts and the state of the training lie in it, too, so that the
            same command goes on after an interruption.
        texts: a folder of earlier texts of the target, in place of texts that it writes now.
        tokens: that the target writes, at most.
        minutes: for all, writing and training.
        passes: over the texts, at most.
        vocab: rows of the head's LM head, at most.
        lag: how many tokens behind the last answer the head learns to draft.
        device: where target and head compute.
        network: a swarm that serves the target; None computes it in this process.
        compare: a draft model that is measured on the same texts.
    """

    model: str
    out: Path
    tokens: int = 400_000
    minutes: float = 9.0
    passes: int = 12
    vocab: int = 8192
    lag: int = 16
    texts: Path | None = None
    device: str = "auto"
    network: Network | None = None
    identity: Identity | None = None
    compare: str | None = None
    writing: Writing = field(default_factory=Writing)
