"""What a draft chooses behind several paths, by its logits."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping

CHOICES = 4  # choices of the draft returned for a place; plans take fewer


def choose_each(
    logits: Tensor,
    text: Sequence[int],
    paths: Sequence[Sequence[int]],
    sampling: Sampling,
    shaping: Shaping,
    source: Source,
) -> Iterator[Drafted]:
    """Yield the choice behind each path, with the next ones as its `Drafted.others`.

    Args:
        logits: ``[len(paths), vocabulary]`` of the target's tokens, float32, on the CPU.
        text: all committed tokens.
        paths: behind the text, drafted.
    """
    logits = shaping.apply_each(logits, text, paths)
    positions = [len(text) + len(path) for path in paths]
    ranked = sampling.rank(logits, positions, CHOICES)
    for row, ((token, confidence), *others) in zip(logits, ranked, strict=True):
        # A copy: a view of one path's row would keep the rows of all paths.
        yield Drafted(token, row.clone(), confidence, tuple(others), source)
