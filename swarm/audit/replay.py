"""How a text is run once more, so that it looks as if it were being written: its prompt, then
window after window."""

import random
from collections.abc import Iterator, Sequence

from swarm.decoding.windows import Window, windows
from swarm.wire.tensors import MAX_FRAME_TOKENS

MOST_AT_ONCE = 8  # tokens a window, as many as a drafter is often right


def replay_windows(
    tokens: Sequence[int], prompt_tokens: int, rng: random.Random
) -> Iterator[Window]:
    """The frames of a session that is told ``tokens``.

    Answers are wanted from the prompt's last token on.

    Each that asks for answers is to be answered before the next one is sent. The prompt's chunks
    before its last ask for none; they are answered as well, with nothing, and need not be waited
    for.
    """
    return windows(tokens, _sizes(prompt_tokens, rng), answered_from=prompt_tokens - 1)


def _sizes(prompt_tokens: int, rng: random.Random) -> Iterator[int]:
    for start in range(0, prompt_tokens, MAX_FRAME_TOKENS):
        yield min(MAX_FRAME_TOKENS, prompt_tokens - start)
    while True:
        yield rng.randint(1, MOST_AT_ONCE)


def places(window: Window) -> range:
    """Return the positions in the text that a window of `replay_windows` asks about: one for each
    row of its answer."""
    end = window.position + len(window.tokens)
    return range(end - window.tail, end)
