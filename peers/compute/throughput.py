"""How fast a span computes here, and with how many CPU threads it is fastest."""

import time
from collections.abc import Callable

import torch

from swarm.model.span import Span
from swarm.model.work import Work

MEASURED_STEPS = 16
LEAST_STEPS = 3  # the first ones warm up
MEASURE_S = 2.0  # for one measurement; a large span on a slow machine takes fewer steps
WORTH = 1.1  # more threads must gain this factor: other programs on this machine pay for them


def measure(span: Span, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the tokens per second of plain decoding through the span, for one session.

    It is the median of at least `LEAST_STEPS` steps.

    Args:
        clock: seconds.
    """
    cache = span.new_cache()
    times: list[float] = []
    while len(times) < MEASURED_STEPS and (len(times) < LEAST_STEPS or sum(times) < MEASURE_S):
        token = torch.zeros(1, dtype=torch.long)
        one = token if span.first == 0 else torch.zeros(1, span.hidden_size, dtype=span.dtype)
        started = clock()
        span.forward([Work.behind(cache, one)])
        times.append(clock() - started)
    return 1.0 / sorted(times)[len(times) // 2]


def tune_threads(span: Span) -> float:
    """Let torch use the CPU threads that measure fastest; return the tokens per second with them.

    All cores are rarely best: the threads of small layers lose more by waiting for each other than
    they gain, and by orders of magnitude where several processes share the cores. Call it before
    the thread that computes starts.
    """
    most = torch.get_num_threads()
    best_speed = 0.0
    best = 1
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
