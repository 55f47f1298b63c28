"""Plain and speculative decoding of the same prompt on the same swarm, and how close it comes to the bound."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from swarm.client import SwarmClient
from swarm.decoding.bound import speedup_bound
from swarm.results import Generation, Piece, Stats


@dataclass(frozen=True)
class Comparison:
    """One prompt, decoded twice."""

    prompt: str
    plain: Generation
    speculative: Generation

    @property
    def speedup(self) -> float:
        return self.speculative.stats.tokens_per_second / self.plain.stats.tokens_per_second

    @property
    def bound(self) -> float:
        """The most that speculation could gain here, by measured acceptance, loop and token times."""
        stats = self.speculative.stats
        return speedup_bound(alpha(stats), self.plain.stats.loop_ms, token_ms(stats))

    def as_dict(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "plain": self.plain.as_dict(),
            "speculative": self.speculative.as_dict(),
            "speedup": self.speedup,
            "speedup_bound": self.bound,
            "identical": self.plain.token_ids == self.speculative.token_ids,
        }


async def compare(
    client: SwarmClient,
    prompt: str,
    *,
    window: int,
    max_new_tokens: int,
    show: Callable[[str, Piece], Awaitable[None]],
) -> Comparison:
    """Decode ``prompt`` plainly, then speculatively; ``show`` gets every piece with "plain" or "speculative"."""
    generations = []
    for name, drafted in (("plain", 0), ("speculative", window)):
        stream = client.stream(prompt, window=drafted, max_new_tokens=max_new_tokens)
        async for piece in stream:
            await show(name, piece)
        generations.append(stream.result)
    return Comparison(prompt, *generations)


def alpha(stats: Stats) -> float:
    """Chance that a drafted token is kept, given that all before it were: kept over kept and missed."""
    judged = stats.accepted_tokens + stats.rejections
    return stats.accepted_tokens / judged if judged else 0.0


def token_ms(stats: Stats) -> float:
    """tau of the bound: drafting one token, or one token in the slowest stage, whichever takes longer."""
    positions = stats.drafted_tokens / stats.loops + 1
    return max(stats.draft_ms_per_token or 0.0, max(stats.stage_compute_ms, default=0.0) / positions)
