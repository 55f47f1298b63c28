"""Metrics of a gateway for Prometheus.

Names are vLLM's where vLLM has the same metric, so that its dashboards work.
"""

from collections.abc import Callable, Iterator
from functools import partial
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

from swarm.gateway.admission import AdmissionControl
from swarm.outputs import Audits, Stats

MAX_POSITIONS = 32  # of a window that are counted by themselves: each is a series of its own
MODEL = "model_name"
CODE = "code"
SOURCE = "source"
FIRST_TOKEN_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CLIENT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
TEXT_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
LOOP_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Audited(Protocol):
    """Has the results of one model's audits."""

    @property
    def audits(self) -> Audits: ...


class Metrics:
    """Metrics of one gateway, in a registry of its own.

    All methods are cheap. Call them on the event loop.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, admission: AdmissionControl) -> None:
        self._registry = CollectorRegistry()
        self._texts = _TextMetrics(self._registry)
        self._speculation = _SpeculationMetrics(self._registry)
        self._audits = _AuditMetrics()
        self._registry.register(self._audits)
        self._refused = Counter(
            "swarm_requests_refused", "Requests that were refused.", [CODE], registry=self._registry
        )
        self._gauge(
            "vllm:num_requests_running", "Generations that run now.", lambda: admission.running
        )
        self._gauge(
            "vllm:num_requests_waiting",
            "Generations that wait for their turn.",
            lambda: admission.waiting,
        )

    def watch_audits(self, model: str, engine: Audited) -> None:
        """Read a model's audits from ``engine`` at every scrape: they outlast their texts."""
        self._audits.engines[model] = engine

    def first_token(self, model: str, seconds: float) -> None:
        """Count the time from a request to its first token."""
        self._texts.first_token_s.labels(model).observe(seconds)

    def finished(self, model: str, stats: Stats, seconds: float) -> None:
        """Count a text that came to its end, ``seconds`` after its request."""
        self._texts.add(model, stats, seconds)
        if stats.drafted_tokens:
            self._speculation.add(model, stats)

    def failed(self, model: str, code: str) -> None:
        """Count a text that failed, by a code of `swarm.gateway.errors`."""
        self._texts.failed.labels(model, code).inc()

    def abandoned(self, model: str) -> None:
        """Count a text whose reader left before its end."""
        self._texts.abandoned.labels(model).inc()

    def refused(self, code: str) -> None:
        """Count a request that was refused before anything was generated."""
        self._refused.labels(code).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        Gauge(name, meaning, registry=self._registry).set_function(value)


class _TextMetrics:
    """Texts and their tokens, times and failures, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(_counter, registry)
        histogram = partial(_histogram, registry)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Tokens of prompts.")
        self.new_tokens = counter("vllm:generation_tokens", "Tokens that were generated.")
        self.ended = counter(
            "vllm:request_success", "Texts that came to their end.", "finished_reason"
        )
        self.relaxed = counter(
            "swarm_relaxed_tokens", "Kept tokens that the target would have chosen otherwise."
        )
        self.failovers = counter(
            "swarm_failovers", "Times that peers were replaced while a text was written."
        )
        self.failed = counter(
            "swarm_generations_failed", "Texts that failed in the swarm, by error code.", CODE
        )
        self.abandoned = counter(
            "swarm_generations_abandoned", "Texts whose reader left before their end."
        )
        self.first_token_s = histogram(
            "vllm:time_to_first_token_seconds",
            "From a request to its first token, waiting included.",
            FIRST_TOKEN_S,
        )
        self.text_s = histogram(
            "vllm:e2e_request_latency_seconds",
            "From a request to its last token, waiting included.",
            TEXT_S,
        )
        self.loop_s = histogram(
            "swarm_loop_seconds", "Mean loop through the chain, of each text.", LOOP_S
        )
        self.waited_s = counter(
            "swarm_text_seconds",
            "The time of texts, by what they waited for (`swarm.outputs.TimeShare`).",
            "part",
        )
        self.judge_s = histogram(
            "swarm_judge_seconds", "Mean time to judge an answer here, of each text.", CLIENT_S
        )
        self.draft_s = histogram(
            "swarm_draft_seconds", "Mean time to draft a token here, of each text.", CLIENT_S
        )

    def add(self, model: str, stats: Stats, seconds: float) -> None:
        self.ended.labels(model, stats.finish_reason).inc()
        self.prompt_tokens.labels(model).inc(stats.prompt_tokens)
        self.new_tokens.labels(model).inc(stats.new_tokens)
        self.relaxed.labels(model).inc(stats.relaxed_tokens)
        self.failovers.labels(model).inc(len(stats.failovers))
        self.text_s.labels(model).observe(seconds)
        self.loop_s.labels(model).observe(stats.loop_ms / 1e3)
        if stats.share is not None:
            for part, share in vars(stats.share).items():
                self.waited_s.labels(model, part).inc(max(0.0, share * stats.seconds))
        if stats.judge_ms is not None:
            self.judge_s.labels(model).observe(stats.judge_ms / 1e3)
        if stats.draft_ms_per_token is not None:
            self.draft_s.labels(model).observe(stats.draft_ms_per_token / 1e3)


class _SpeculationMetrics:
    """Drafted tokens and how many of them were kept, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(_counter, registry)
        self._drafts = counter("vllm:spec_decode_num_drafts", "Loops that judged drafted tokens.")
        self._drafted = counter("vllm:spec_decode_num_draft_tokens", "Tokens that were drafted.")
        self._accepted = counter(
            "vllm:spec_decode_num_accepted_tokens", "Drafted tokens that were kept."
        )
        self._accepted_at = counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "Drafted tokens kept, by their place in a loop.",
            "position",
        )
        self._judged_of = counter(
            "swarm_drafts_judged", "First choices of a source of drafts that were decided.", SOURCE
        )
        self._accepted_of = counter("swarm_drafts_accepted", "Of these, those kept.", SOURCE)

    def add(self, model: str, stats: Stats) -> None:
        self._drafts.labels(model).inc(stats.loops)
        self._drafted.labels(model).inc(stats.drafted_tokens)
        self._accepted.labels(model).inc(stats.accepted_tokens)
        for position, kept in enumerate(kept_at(stats.acceptance_histogram)):
            self._accepted_at.labels(model, str(position)).inc(kept)
        for each in stats.acceptance_by_source:
            self._judged_of.labels(model, each.source).inc(sum(each.judged))
            self._accepted_of.labels(model, each.source).inc(sum(each.accepted))


class _AuditMetrics(Collector):
    """Results of the audits, read from each model's engine at every scrape."""

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
    """Return how often the drafted token at each position of a window was kept.

    Args:
        histogram: the number of loops that kept 0, 1, 2, ... drafted tokens.
    """
    at_least = list(accumulate(reversed(histogram[1:])))
    return at_least[::-1][:MAX_POSITIONS]


def _counter(registry: CollectorRegistry, name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, [MODEL, *labels], registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, meaning: str, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(name, meaning, [MODEL], buckets=buckets, registry=registry)
