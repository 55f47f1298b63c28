"""``swarm bench --shape``: decode in all ways with a client and peers of a real size.

The peers are processes on this machine that take the time of GPUs; the client computes here.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from swarm.bench.command import decode_all
from swarm.bench.compare import Comparison
from swarm.bench.figures import WayFigures, all_figures
from swarm.bench.ways import BRANCHES, PAPERS_WINDOW, PLAIN, STREAMING
from swarm.client.client import SwarmClient
from swarm.client.settings import ClientOptions
from swarm.demo.local import LocalSwarm, even_spans
from swarm.errors import ConfigError, LocalError
from swarm.model.checkpoint import Checkpoint
from swarm.shapes.catalogue import RTX_4090, DraftKind, Shape
from swarm.shapes.client import ShapedClient
from swarm.shapes.folder import file_bytes, write_draft, write_draft_head, write_target
from swarm.shapes.script import Guesser, Odds, Script, prompt_of
from swarm.terminal.activity import activity
from swarm.util.prompt_files import Prompt

WAYS = (PLAIN, PAPERS_WINDOW, STREAMING, BRANCHES)
PROMPT_TOKENS = 32
NOW = "now"
AS_BEFORE = "before"  # a client as it was before heads were certified and drafts quantized
WITHOUT_HEAD = "without a head"  # a client that leaves the head to the last peer
OTHERS = {"before": AS_BEFORE, "without_head": WITHOUT_HEAD}  # by their names in JSON
PEER_OPTIONS = ("--scripted", "--dtype", "bfloat16")  # hidden states as GPUs send them
PEER_BYTES = 400 << 20  # of a peer process without weights
HELD_PER_BYTE = 3  # of the files in 16 bits: float32, and a copy in 8 bits or what is being read


@dataclass(eq=False)
class TooLarge(LocalError):
    """A shape takes more than this computer has free."""

    shape: str
    what: str
    needs_bytes: int
    has_bytes: int

    def __str__(self) -> str:
        return (
            f"the shape {self.shape} needs {self.needs_bytes / 1e9:.1f} GB of {self.what} here, and"
            f" {self.has_bytes / 1e9:.1f} GB are free; free some, or try a smaller shape"
        )


@dataclass(frozen=True)
class ShapeSettings:
    """What to measure.

    Attributes:
        count: texts that are written in every way.
        plain_tokens: length of the plain texts.
        link_ms: emulated one-way delay of every link.
        drafting: what drafts.
        client: options of the client.
        others: clients that are measured beside the one of now.
    """

    shape: Shape
    odds: Odds
    peers: int
    link_ms: float
    count: int
    max_new_tokens: int
    plain_tokens: int
    drafting: DraftKind = "model"
    client: ClientOptions = field(default_factory=lambda: ClientOptions())
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.peers > self.shape.layers:
            problem = f"{self.shape.name} has {self.shape.layers} layers; give at most as many"
            raise ConfigError("--peers", problem)


@dataclass(frozen=True)
class ShapeResult:
    """The comparisons of each client, by its name: `NOW`, and those of `OTHERS` that were asked
    for."""

    settings: ShapeSettings
    stage_ms: tuple[float, ...]  # of each peer, for one position
    clients: dict[str, list[Comparison]]

    def rows(self, client: str = NOW) -> list[WayFigures]:
        return all_figures(self.clients[client], WAYS)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: ``ways`` are those of the client as it is now."""
        settings = self.settings
        facts = {
            "name": settings.shape.name,
            "layers": settings.shape.layers,
            "hidden_size": settings.shape.hidden_size,
            "vocab_size": settings.shape.vocab_size,
            "drafter": settings.drafting,
            "draft": asdict(settings.shape.drafting(settings.drafting)),
            "gpu": RTX_4090.name,
            "stage_ms": self.stage_ms,
            "peers": settings.peers,
            "link_ms": settings.link_ms,
            **asdict(settings.odds),
        }
        others = {
            key: [row.as_dict() for row in self.rows(name)] if name in self.clients else None
            for key, name in OTHERS.items()
        }
        return {
            "shape": facts,
            "ways": [row.as_dict() for row in self.rows()],
            **others,
            "compute": asdict(self.clients[NOW][0].plain.stats.compute),
            "prompts": [comparison.as_dict() for comparison in self.clients[NOW]],
        }


async def measure_shape(settings: ShapeSettings, quiet: bool = False) -> ShapeResult:
    """Write the models, start the peers, and decode with one client after the other.

    Raises:
        TooLarge: if there is not enough memory or disk.
        SwarmError: what `LocalSwarm` and `SwarmClient` raise.
    """
    shape, kind = settings.shape, settings.drafting
    check_room(shape, settings.peers, kind)
    spans = even_spans(shape.layers, settings.peers)
    with activity(quiet) as waiting_for, models_of(shape, waiting_for, kind) as (folder, script):
        waiting_for(f"starting {settings.peers} peers")
        guesser = Guesser(script, settings.odds, shape.vocab_size)
        clients = {}
        target = str(folder / "target")
        async with LocalSwarm(target, spans, settings.link_ms, more=PEER_OPTIONS) as swarm:
            for name in (NOW, *settings.others):
                waiting_for(f"loading the client's models ({name})")
                async with client_of(name, folder, guesser, swarm, settings) as client:
                    waiting_for("")
                    clients[name] = await decode_all(
                        client,
                        WAYS,
                        [Prompt(text) for text in prompts(settings)],
                        max_new_tokens=settings.max_new_tokens,
                        plain_tokens=settings.plain_tokens,
                        quiet=quiet,
                    )
        stage_ms = tuple(round(script.stage_ms(last - first, 1), 2) for first, last in spans)
        return ShapeResult(settings, stage_ms, clients)


@contextlib.asynccontextmanager
async def client_of(
    name: str, folder: Path, guesser: Guesser, swarm: LocalSwarm, settings: ShapeSettings
) -> AsyncIterator[SwarmClient]:
    """Open a client of the models in a folder."""
    options: ClientOptions = {
        **settings.client,
        "draft": str(folder / "draft"),
        "network": swarm.network,
        "link_ms": settings.link_ms,
        "audit_rate": 0.0,
    }
    if name == WITHOUT_HEAD:
        options["head"] = "peer"
    as_before = name == AS_BEFORE
    if as_before:
        options = {**options, "head": "local", "device": "cpu"}
        options = {**options, "draft_device": "cpu", "draft_dtype": "float32"}
    target = str(folder / "target")
    async with ShapedClient(target, guesser, as_before=as_before, **options) as client:
        yield client


@contextlib.contextmanager
def models_of(
    shape: Shape, waiting_for: Callable[[str], None], kind: DraftKind = "model"
) -> Iterator[tuple[Path, Script]]:
    """Write the models of a shape into a folder that is gone afterwards; yield it, and the script.

    Hashes of their files are noted there, too, and not in the user's cache.
    """
    with tempfile.TemporaryDirectory(prefix="swarm-shape-") as name, _cache(Path(name) / "cache"):
        folder = Path(name)
        waiting_for(f"writing models of the size of {shape.name}")
        script = write_target(shape, folder / "target")
        write = write_draft_head if kind == "head" else write_draft
        write(shape, folder / "draft")
        _ = Checkpoint.open(str(folder / "target")).fingerprint  # hashed once for all peers
        yield folder, script


def prompts(settings: ShapeSettings) -> list[str]:
    """Return the prompts, each of which begins a text with luck of its own."""
    vocab_size = settings.shape.vocab_size
    texts = (prompt_of(vocab_size, number, PROMPT_TOKENS) for number in range(settings.count))
    return [" ".join(f"w{token}" for token in text) for text in texts]


def check_room(shape: Shape, peers: int, kind: DraftKind = "model") -> None:
    """Raise `TooLarge` if there is not enough memory or disk."""
    written = sum(file_bytes(shape, kind))
    needs = {
        "memory": (
            HELD_PER_BYTE * written + peers * PEER_BYTES,
            psutil.virtual_memory().available,
        ),
        "disk": (written, shutil.disk_usage(tempfile.gettempdir()).free),
    }
    for what, (needs_bytes, has_bytes) in needs.items():
        if needs_bytes > has_bytes:
            raise TooLarge(shape.name, what, needs_bytes, has_bytes)


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Let this process and its children note what they know of files in another folder."""
    before = os.environ.get("SWARM_CACHE")
    os.environ["SWARM_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["SWARM_CACHE"]
        if before is not None:
            os.environ["SWARM_CACHE"] = before
