"""How likely the target found a token, and what it found likeliest there."""

from torch import Tensor


def log_probabilities(
    logits: Tensor, token: int, count: int
) -> tuple[float, list[tuple[int, float]]]:
    """The log probability of ``token`` in nats, and the ``count`` likeliest tokens with theirs, the
    likeliest first.

    Args:
        logits: ``[vocabulary]``, shaped by penalties and biases; of these probabilities at
            temperature 1 are told.
    """
    told = logits.float().log_softmax(-1)
    values, tokens = told.topk(min(count, told.shape[-1]))
    return float(told[token]), list(zip(tokens.tolist(), values.tolist(), strict=True))
