"""What a generation gives back. Field names are part of the SDK and of every ``--json`` output."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from swarm.decoding.decoder import Counts, FinishReason
from swarm.decoding.verify import Origin


@dataclass(frozen=True)
class Piece:
    """One committed token. ``text`` may be empty while a character is not complete; ``origin`` says who chose it."""

    token_id: int
    text: str
    origin: Origin


@dataclass(frozen=True)
class RouteStop:
    """One peer of the chain, the layers ``[a, b)`` it computed, and its round trip from the client."""

    peer_id: str
    layers: tuple[int, int]
    rtt_ms: float


@dataclass(frozen=True)
class Stats:
    """What a generation took. Rates are None where nothing was drafted or decided."""

    prompt_tokens: int
    new_tokens: int
    seconds: float  # from the first frame to the last token
    tokens_per_second: float
    time_to_first_token_ms: float
    loops: int  # answers of the chain that decided something
    loop_ms: float  # mean time from sending a window to its answer, the prompt's chunks left out
    stage_compute_ms: tuple[float, ...]  # mean per loop, one entry a stage
    drafted_tokens: int
    accepted_tokens: int
    rejections: int  # drafted tokens that the target overruled, at most one a loop
    draft_acceptance_rate: float | None  # accepted / drafted
    mean_acceptance_length: float | None  # tokens committed a loop
    draft_ms_per_token: float | None
    bytes_sent: int  # by the client, all frames of the session
    bytes_received: int
    verification: Literal["exact"]
    seed: int | None  # of the sampling noise; None for greedy
    finish_reason: FinishReason


@dataclass(frozen=True)
class Generation:
    """A finished generation. ``token_ids`` are the new tokens, a stop token included; ``text`` leaves that out."""

    text: str
    token_ids: tuple[int, ...]
    route: tuple[RouteStop, ...]
    stats: Stats

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass
class Meter:
    """Takes measurements while a generation runs; `Meter.stats` sums up. Times are seconds of `clock`."""

    clock: Callable[[], float] = time.perf_counter
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    new_tokens: int = 0
    draft_seconds: float = 0.0
    draft_tokens: int = 0
    loops_ms: list[float] = field(default_factory=list)
    compute_ms: list[tuple[float, ...]] = field(default_factory=list)

    def start(self) -> None:
        self.started = self.first_token = self.last_token = self.clock()

    def drafted(self, tokens: int, seconds: float) -> None:
        self.draft_tokens += tokens
        self.draft_seconds += seconds

    def loop(self, loop_ms: float, compute_ms: tuple[float, ...], tokens: int) -> None:
        """An answer came that commits ``tokens``."""
        self.last_token = self.clock()
        if not self.new_tokens:
            self.first_token = self.last_token
        self.new_tokens += tokens
        self.loops_ms.append(loop_ms)
        self.compute_ms.append(compute_ms)

    def stats(
        self,
        counts: Counts,
        *,
        prompt_tokens: int,
        bytes_sent: int,
        bytes_received: int,
        seed: int | None,
        finish_reason: FinishReason,
    ) -> Stats:
        """Everything at the end. The first loop carries the prompt: it is left out of the means if there are others."""
        seconds, new_tokens = self.last_token - self.started, self.new_tokens
        loops_ms, compute_ms = self.loops_ms[1:] or self.loops_ms, self.compute_ms[1:] or self.compute_ms
        return Stats(
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            seconds=seconds,
            tokens_per_second=new_tokens / seconds if seconds else 0.0,
            time_to_first_token_ms=(self.first_token - self.started) * 1e3,
            loops=counts.loops,
            loop_ms=_mean(loops_ms),
            stage_compute_ms=tuple(_mean(list(stage)) for stage in zip(*compute_ms, strict=False)),
            drafted_tokens=counts.drafted,
            accepted_tokens=counts.accepted,
            rejections=counts.rejected,
            draft_acceptance_rate=counts.accepted / counts.drafted if counts.drafted else None,
            mean_acceptance_length=new_tokens / counts.loops if counts.loops else None,
            draft_ms_per_token=self.draft_seconds * 1e3 / self.draft_tokens if self.draft_tokens else None,
            bytes_sent=bytes_sent,
            bytes_received=bytes_received,
            verification="exact",
            seed=seed,
            finish_reason=finish_reason,
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
