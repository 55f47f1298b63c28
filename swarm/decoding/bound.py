"""How fast speculation could be at most: the yardstick of every benchmark
(docs/architecture.md)."""


def speedup_bound(alpha: float, loop_ms: float, token_ms: float) -> float:
    """The most that any speculation can gain over plain decoding:
    ``1 / ((1 - alpha) + alpha * tau / D)``.

    Args:
        alpha: chance that a drafted token is kept.
        loop_ms: D, once around the chain with one token, compute included.
        token_ms: tau, the slowest of drafting, one stage's compute and sending, per token; above 0
            like D.
    """
    return 1.0 / ((1.0 - alpha) + alpha * token_ms / loop_ms)


def time_bound_ms(tokens: int, misses: int, loop_ms: float, token_ms: float) -> float:
    """The least time that a text of ``tokens`` can take of whose places ``misses`` were drafted
    wrongly.

    The same bound as `speedup_bound`, for a text that has a beginning and an end: whoever starts
    and whoever corrects waits for one loop, and everything between comes at the pace of
    ``token_ms``.
    """
    loops = min(tokens, 1 + misses)
    return loops * loop_ms + (tokens - loops) * token_ms


def expected_tokens(alpha: float, window: int) -> float:
    """Tokens a loop with windows of ``window`` drafted tokens:
    ``(1 - alpha^(k + 1)) / (1 - alpha)``."""
    # Summed term by term: the closed form divides by zero at alpha = 1 and loses its digits near
    # it.
    return sum(alpha**kept for kept in range(window + 1))
