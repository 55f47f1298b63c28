"""How fast a span computes here, and with how many CPU threads it is fastest."""

import time

import torch

from swarm.model.span import Span, Work

MEASURED_STEPS = 16
LEAST_STEPS = 3  # the first ones warm up
MEASURE_S = 2.0  # for one measurement; a large span on a slow machine takes fewer steps
WORTH = 1.1  # more threads must gain this factor: whoever shares the machine pays for them


def measure(span: Span) -> float:
    """Tokens per second of plain decoding through the span, one session, by the median of a few
    steps."""
    cache = span.new_cache()
    times: list[float] = []
    while len(times) < MEASURED_STEPS and (len(times) < LEAST_STEPS or sum(times) < MEASURE_S):
        token = torch.zeros(1, dtype=torch.long)
        one = token if span.first == 0 else torch.zeros(1, span.hidden_size, dtype=span.dtype)
        started = time.perf_counter()
        span.forward([Work.behind(cache, one)])
        times.append(time.perf_counter() - started)
    return 1.0 / sorted(times)[len(times) // 2]


def tune_threads(span: Span) -> float:
    """Set torch's CPU threads to the number that is fastest, measured, and return the tokens per
    second with it.

    All cores are rarely best: small layers lose more in waiting for each other than they gain, and
    where several processes share the cores, by orders of magnitude. Call it before the thread that
    computes starts.
    """
    most, best_speed, best = torch.get_num_threads(), 0.0, 1
    threads = 1
    while threads <= most:
        torch.set_num_threads(threads)
        speed = measure(span)
        if speed > best_speed * WORTH:
            best_speed, best = speed, threads
        elif best_speed > 2 * speed:
            break  # it only gets worse, and slowly
        threads *= 2
    torch.set_num_threads(best)
    return best_speed
