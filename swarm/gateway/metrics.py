"""What this gateway has done, for Prometheus.

Names are vLLM's where it has them, so that its dashboards work.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from swarm.gateway.admission import Admission
from swarm.outputs import Audits, Stats

MAX_POSITIONS = 32  # of a window that are told apart: every one is a series of its own
MODEL, CODE = "model_name", "code"
FIRST_TOKEN_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TEXT_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
LOOP_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Audited(Protocol):
    """Knows what became of texts that were to be audited."""

    @property
    def audits(self) -> Audits: ...


class Metrics:
    """Counters of one gateway, in a registry of its own.

    All methods are cheap, and called on the event loop.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._gauge(
            "vllm:num_requests_running", "Generations that run now.", lambda: admission.running
        )
        self._gauge(
            "vllm:num_requests_waiting",
            "Generations that wait for their turn.",
            lambda: admission.waiting,
        )
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Tokens of prompts.")
        self._new_tokens = self._counter("vllm:generation_tokens", "Tokens that were generated.")
        self._ended = self._counter(
            "vllm:request_success", "Texts that came to their end.", "finished_reason"
        )
        self._drafts = self._counter(
            "vllm:spec_decode_num_drafts", "Loops that judged drafted tokens."
        )
        self._drafted = self._counter(
            "vllm:spec_decode_num_draft_tokens", "Tokens that were drafted."
        )
        self._accepted = self._counter(
            "vllm:spec_decode_num_accepted_tokens", "Drafted tokens that were kept."
        )
        self._accepted_at = self._counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "Drafted tokens kept, by their place in a loop.",
            "position",
        )
        self._relaxed = self._counter(
            "swarm_relaxed_tokens", "Kept tokens that the target would have chosen otherwise."
        )
        self._failovers = self._counter(
            "swarm_failovers", "Times that peers were replaced while a text was written."
        )
        self._failed = self._counter(
            "swarm_generations_failed", "Texts that failed in the swarm, by error code.", CODE
        )
        self._left = self._counter(
            "swarm_generations_abandoned", "Texts whose reader left before their end."
        )
        self._refused = Counter(
            "swarm_requests_refused", "Requests that were refused.", [CODE], registry=self._registry
        )
        self._first_token_s = self._histogram(
            "vllm:time_to_first_token_seconds",
            "From a request to its first token, waiting included.",
            FIRST_TOKEN_S,
        )
        self._text_s = self._histogram(
            "vllm:e2e_request_latency_seconds",
            "From a request to its last token, waiting included.",
            TEXT_S,
        )
        self._loop_s = self._histogram(
            "swarm_loop_seconds", "Mean loop through the chain, of each text.", LOOP_S
        )
        self._audits = _AuditMetrics()
        self._registry.register(self._audits)

    def tell_audits(self, model: str, engine: Audited) -> None:
        """Ask this, at every scrape, what became of a model's audits: they go on when their texts
        are over."""
        self._audits.engines[model] = engine

    def first_token(self, model: str, seconds: float) -> None:
        self._first_token_s.labels(model).observe(seconds)

    def finished(self, model: str, stats: Stats, seconds: float) -> None:
        """A text came to its end."""
        self._ended.labels(model, stats.finish_reason).inc()
        self._prompt_tokens.labels(model).inc(stats.prompt_tokens)
        self._new_tokens.labels(model).inc(stats.new_tokens)
        self._relaxed.labels(model).inc(stats.relaxed_tokens)
        self._failovers.labels(model).inc(len(stats.failovers))
        self._text_s.labels(model).observe(seconds)
        self._loop_s.labels(model).observe(stats.loop_ms / 1e3)
        if stats.drafted_tokens:
            self._drafts.labels(model).inc(stats.loops)
            self._drafted.labels(model).inc(stats.drafted_tokens)
            self._accepted.labels(model).inc(stats.accepted_tokens)
            for position, kept in enumerate(kept_at(stats.acceptance_histogram)):
                self._accepted_at.labels(model, str(position)).inc(kept)

    def failed(self, model: str, code: str) -> None:
        """A text failed, by a code of `swarm.gateway.errors`."""
        self._failed.labels(model, code).inc()

    def abandoned(self, model: str) -> None:
        """A reader left before the end of the text."""
        self._left.labels(model).inc()

    def refused(self, code: str) -> None:
        """A request was refused before anything was generated."""
        self._refused.labels(code).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, [MODEL, *labels], registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, meaning, [MODEL], buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        Gauge(name, meaning, registry=self._registry).set_function(value)


class _AuditMetrics(Collector):
    """What became of texts that were to be audited."""

    def __init__(self) -> None:
        self.engines: dict[str, Audited] = {}

    def collect(self) -> Iterator[Metric]:
        made = CounterMetricFamily(
            "swarm_audits",
            "Texts whose answers were compared with those of other peers.",
            labels=[MODEL, "result"],
        )
        failed = CounterMetricFamily(
            "swarm_audits_failed",
            "Texts that were due for it and could not be.",
            labels=[MODEL, "reason"],
        )
        waiting = GaugeMetricFamily(
            "swarm_audits_waiting", "Texts that are still to be.", labels=[MODEL]
        )
        caught = GaugeMetricFamily(
            "swarm_peers_caught", "Peers that lied, and are banned.", labels=[MODEL]
        )
        for model, engine in self.engines.items():
            audits = engine.audits
            made.add_metric([model, "agreed"], audits.texts - audits.disagreements)
            made.add_metric([model, "disagreed"], audits.disagreements)
            for reason, count in audits.failures.items():
                failed.add_metric([model, reason], count)
            waiting.add_metric([model], audits.waiting)
            caught.add_metric([model], len(audits.caught))
        return iter((made, failed, waiting, caught))


def kept_at(histogram: tuple[int, ...]) -> list[int]:
    """How often the drafted token at each place of a loop was kept, of loops by the number of
    tokens they kept."""
    at_least = list(accumulate(reversed(histogram[1:])))
    return at_least[::-1][:MAX_POSITIONS]
