"""Two spans and a head, run as a swarm runs them, to compare with the whole model."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from helpers.models import LAYERS, VOCAB
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.wire.token_tree import Placement, TokenTree

BOUND = 1e-5  # of the error of a logit, relative to the largest logit


def tokens(count: int, seed: int) -> torch.Tensor:
    return torch.randint(3, VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


class Session:
    """A session on the spans of a chain, and its tree of tokens."""

    def __init__(self, spans: list[Span]) -> None:
        self.caches = [span.new_cache() for span in spans]
        self.stream = TokenTree()

    def place(
        self,
        count: int,
        epoch: int = 0,
        root: int | None = None,
        parents: Sequence[int] | None = None,
    ) -> Placement:
        stream = self.stream
        root = stream.root if root is None else root
        placed = stream.admit(max(epoch, stream.epoch), root, stream.last + 1, count, parents)
        assert placed is not None
        return placed


class Chain:
    """Two spans and the head, as a swarm runs them; `open` makes sessions."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        middle = LAYERS // 2
        self.spans = [Span.load(checkpoint, 0, middle), Span.load(checkpoint, middle, LAYERS)]
        self.head = Head.load(checkpoint)

    def open(self) -> Session:
        return Session(self.spans)

    def run(self, *works: tuple[Session, torch.Tensor]) -> list[torch.Tensor]:
        """Compute tokens that follow those of their sessions, in one forward: logits [n, vocab]."""
        return self.run_placed(
            *((session, inputs, session.place(len(inputs))) for session, inputs in works)
        )

    def run_placed(self, *works: tuple[Session, torch.Tensor, Placement]) -> list[torch.Tensor]:
        values = [inputs for _, inputs, _ in works]
        for stage, span in enumerate(self.spans):
            batch = [
                Work(s.caches[stage], value, p)
                for (s, _, p), value in zip(works, values, strict=True)
            ]
            values = span.forward(batch)
        return [self.head.logits(value) for value in values]


def whole_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids[None], use_cache=False).logits[0].float()


def assert_equal_logits(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    error = ((got - expected).abs().max() / expected.abs().max()).item()
    assert error <= BOUND
