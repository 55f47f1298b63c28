"""How a text is run once more as if it were being written: its prompt, then window after window."""

import random
from collections.abc import Iterator, Sequence

from swarm.decoding.windows import Window, windows
from swarm.wire.tensors import MAX_FRAME_TOKENS

MOST_AT_ONCE = 8  # tokens in a window, a usual run of accepted drafts


def replay_windows(
    tokens: Sequence[int],
    prompt_tokens: int,
    rng: random.Random,
    answered_from: int | None = None,
) -> Iterator[Window]:
    """Return the windows of a session that computes ``tokens``, prompt first.

    Answers are wanted from the prompt's last token on. A window that asks for these has to be
    answered before the next one is sent. The prompt's chunks before its last do not: they need not
    be waited for.

    Args:
        answered_from: the first position of the prompt that is answered for a drafter; None for
            none, and then those chunks' answers are empty.
    """
    predicted_from = prompt_tokens - 1
    first = predicted_from if answered_from is None else min(answered_from, predicted_from)
    return windows(tokens, _sizes(prompt_tokens, rng), first, predicted_from)


def _sizes(prompt_tokens: int, rng: random.Random) -> Iterator[int]:
    for start in range(0, prompt_tokens, MAX_FRAME_TOKENS):
        yield min(MAX_FRAME_TOKENS, prompt_tokens - start)
    while True:
        yield rng.randint(1, MOST_AT_ONCE)


def places(window: Window) -> range:
    """Return the positions that a window asks about; its answer has a row for each."""
    end = window.position + len(window.tokens)
    return range(end - window.tail, end)
