"""How fast speculation can be at most: the yardstick of every benchmark (docs/architecture.md)."""


def speedup_bound(alpha: float, loop_ms: float, token_ms: float) -> float:
    """Return the upper bound of any speculation's speedup over plain decoding.

    ``1 / ((1 - alpha) + alpha * tau / D)`` (docs/architecture.md, "The arithmetic"). It is 1 if
    drafting a token takes longer than a loop: then plain decoding is the best.

    Args:
        alpha: chance that a drafted token is accepted, given that all before it were.
        loop_ms: D, once around the chain with one token, compute included; above 0.
        token_ms: tau, the slowest of drafting, one stage's compute and sending, per token; above 0.
    """
    return 1.0 / ((1.0 - alpha) + alpha * min(token_ms, loop_ms) / loop_ms)


def time_bound_ms(tokens: int, misses: int, loop_ms: float, token_ms: float) -> float:
    """Return the least time in which a text of ``tokens`` with ``misses`` rejected drafts can come.

    The bound of `speedup_bound` for a text that has a beginning and an end: the first token and
    every correction wait for one loop each, and all others come at the pace of ``token_ms``, or of
    plain decoding where that is faster.
    """
    loops = min(tokens, 1 + misses)
    return loops * loop_ms + (tokens - loops) * min(token_ms, loop_ms)


def expected_tokens(alpha: float, window: int) -> float:
    """Return the expected tokens per loop with windows of ``window`` drafted tokens.

    ``(1 - alpha^(k + 1)) / (1 - alpha)`` (Leviathan et al. 2023, equation 1).
    """
    # Summed term by term: the closed form divides by zero at alpha = 1 and is inaccurate near it.
    return sum(alpha**accepted for accepted in range(window + 1))
