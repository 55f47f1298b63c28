"""How a text is run once more, so that it looks as if it were being written: its prompt, then
window after window."""

import random
from collections.abc import Iterator, Sequence

from swarm.decoding.decoder import Window
from swarm.wire.tensors import MAX_FRAME_TOKENS

MOST_AT_ONCE = 8  # tokens a window, as many as a drafter is often right


def windows(tokens: Sequence[int], prompt_tokens: int, rng: random.Random) -> Iterator[Window]:
    """The frames of a session that is told ``tokens``.

    Answers are wanted from the prompt's last token on.

    Each that asks for answers is to be answered before the next one is sent. The prompt's chunks
    before its last ask for none; they are answered as well, with nothing, and need not be waited
    for.
    """
    start = 0
    while start < len(tokens):
        if start < prompt_tokens:
            end = min(start + MAX_FRAME_TOKENS, prompt_tokens)
            tail = int(end == prompt_tokens)
        else:
            end = min(start + rng.randint(1, MOST_AT_ONCE), len(tokens))
            tail = end - start
        yield Window(0, start, start + 1, tuple(tokens[start:end]), None, tail, start)
        start = end


def places(window: Window) -> range:
    """The positions in the text that a window of `windows` asks about, whose answer has a row for
    each."""
    end = window.position + len(window.tokens)
    return range(end - window.tail, end)
