"""One prompt decoded in several ways on the same swarm, and how close each comes to the bound."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.bench.ways import PLAIN, Way
from swarm.client.client import SwarmClient
from swarm.decoding.bound import time_bound_ms
from swarm.outputs import Generation, Piece, Stats
from swarm.request import Options


@dataclass(frozen=True)
class Comparison:
    """One prompt, decoded plainly and in other ways, by their names.

    Attributes:
        kind: of work that the prompt asks for.
    """

    prompt: str
    ways: dict[str, Generation]
    kind: str = "prompt"

    @property
    def plain(self) -> Generation:
        return self.ways[PLAIN.name]

    def agrees(self, way: str) -> bool:
        """Return whether a way gives the tokens of plain decoding, as far as both texts go."""
        tokens = self.ways[way].token_ids
        plain = self.plain.token_ids
        both = min(len(tokens), len(plain))
        return tokens[:both] == plain[:both]

    def speedup(self, way: str) -> float:
        """Return the speedup over plain decoding."""
        return self.ways[way].stats.tokens_per_second / self.plain.stats.tokens_per_second

    def bound_share(self, way: str) -> float | None:
        """Return the share of the bound that a way reaches; None if nothing was drafted.

        The bound is the speed of the best speculation with this draft on this chain, whose loop is
        that of plain decoding.
        """
        stats = self.ways[way].stats
        if not stats.drafted_tokens:
            return None
        misses = stats.rejections - stats.branch_tokens
        loop_ms = self.plain.stats.loop_ms
        bound_ms = time_bound_ms(stats.new_tokens, misses, loop_ms, token_ms(stats))
        return bound_ms / (stats.seconds * 1e3)

    def as_dict(self) -> dict[str, Any]:
        more = {
            way: {"speedup": self.speedup(way), "bound_share": self.bound_share(way)}
            for way in self.ways
        }
        ways = {way: {**generation.as_dict(), **more[way]} for way, generation in self.ways.items()}
        identical = all(map(self.agrees, self.ways))
        return {"prompt": self.prompt, "kind": self.kind, "ways": ways, "identical": identical}


async def _unseen(way: str, piece: Piece) -> None:
    pass


async def compare(
    client: SwarmClient,
    prompt: str,
    ways: Sequence[Way],
    *,
    max_new_tokens: int,
    plain_tokens: int | None = None,
    show: Callable[[str, Piece], Awaitable[None]] = _unseen,
    ids: Sequence[int] | None = None,
) -> Comparison:
    """Decode ``prompt`` in one way after the other.

    Each way is an owner of its own: it copies and learns from its own texts alone. Those of another
    way would tell it all that it is about to write.

    Args:
        ways: must contain the plain one.
        plain_tokens: a shorter length for the plain text, whose speed does not depend on it.
        show: called with every piece and the name of its way.
        ids: the token ids of the prompt; by default those of its text.
    """
    generations = {}
    for number, way in enumerate(ways):
        most = plain_tokens if way is PLAIN and plain_tokens else max_new_tokens
        options: Options = {"owner": f"way {number}", **way.options, "max_new_tokens": most}
        stream = client.stream(prompt if ids is None else ids, **options)
        async for piece in stream:
            await show(way.name, piece)
        generations[way.name] = stream.result
    return Comparison(prompt, generations)


def token_ms(stats: Stats) -> float:
    """Return tau of the bound: the time for one token in drafting or the slowest stage."""
    positions = max(1.0, (stats.positions_per_token or 1.0) * stats.new_tokens / stats.frames)
    stage_ms = max(stats.stage_compute_ms, default=0.0) / positions
    return max(stats.draft_ms_per_token or 0.0, stage_ms)
