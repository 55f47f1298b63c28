"""Spans with recurrent layers are the whole model: in chunks, rolled back, packed, in part."""

import random
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import PreTrainedModel

from helpers.local_chain import Chain, Session, tokens, whole_logits
from helpers.models import LAYERS
from helpers.recurrent_models import RECURRENT, RECURRENT_ALONE
from swarm.errors import SpanError
from swarm.model import span as spans
from swarm.model.checkpoint import Checkpoint
from swarm.model.recurrent.states import MAX_SNAPSHOTS
from swarm.model.span import Span
from swarm.model.work import Work

BOUND = 1e-4  # of the error of a logit, relative to the largest logit
STEPWISE = {"falcon_mamba", "jamba", "mamba", "recurrent_gemma"}


class Text(NamedTuple):
    """A text in a session, and the serials of its tokens."""

    session: Session
    tokens: list[int]
    serials: list[int]

    def go_on(self, new: torch.Tensor, rng: random.Random) -> "Placed":
        """Place new tokens behind some token from the root on; sometimes move the root there."""
        tree = self.session.stream
        epoch = tree.epoch
        root = tree.root
        first = tree.last + 1
        if self.tokens and rng.random() < 0.5:  # cut the text, and begin a newer epoch
            keep = rng.randint(max(tree.trunk, 1), len(self.tokens))
            del self.tokens[keep:], self.serials[keep:]
            root = self.serials[-1]
            epoch += 1
        parent = self.serials[-1] if self.serials else 0
        distances = [first - parent, *[1] * (len(new) - 1)]
        placed = self.session.place(len(new), epoch, root, distances)
        self.tokens.extend(new.tolist())
        self.serials.extend(range(first, first + len(new)))
        return self.session, new, placed


Placed = tuple


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / expected.abs().max()).item()


def right(model: PreTrainedModel, text: Text, logits: torch.Tensor) -> None:
    expected = whole_logits(model, torch.tensor(text.tokens))[-len(logits) :]
    assert error(logits, expected) <= BOUND


@pytest.mark.parametrize("name", RECURRENT)
def test_spans_and_head_are_the_whole_model(name: str, tmp_path: Path) -> None:
    model = RECURRENT[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    chain = Chain(checkpoint)
    for span in chain.spans:
        assert span.packs == (name not in RECURRENT_ALONE)
        assert not span.branches
    assert any(span.recurrent for span in chain.spans)
    assert any(span.stepwise for span in chain.spans) == (name in STEPWISE)

    # Random frames, rollbacks to any row from the root on, beside neighbours that do the same.
    rng = random.Random(7)
    texts = [Text(chain.open(), [], []) for _ in range(3)]
    for step in range(14):
        together = rng.sample(texts, rng.randint(1, 3))
        count = rng.choice((1, 1, 2, 5))
        counts = [count if rng.random() < 0.7 else rng.randint(1, 4) for _ in together]
        placed = [
            text.go_on(tokens(n, seed=100 * step + i), rng)
            for i, (text, n) in enumerate(zip(together, counts, strict=True))
        ]
        for text, logits in zip(together, chain.run_placed(*placed), strict=True):
            right(model, text, logits)
            for cache, span in zip(text.session.caches, chain.spans, strict=True):
                if span.recurrent:
                    assert cache.states.nbytes_each == span.nbytes_of_states
                    inputs = sum(each.nbytes for each in cache.states._inputs)
                    assert cache.states.nbytes <= MAX_SNAPSHOTS * span.nbytes_of_states + inputs

    # A peer takes another one's place: it reads all that the session holds, and goes on.
    old = texts[0].session
    new = Text(chain.open(), texts[0].tokens, texts[0].serials)
    whole = torch.tensor(texts[0].tokens)
    replayed = [
        (
            new.session.stream.admit(
                old.stream.epoch,
                chunk.root,
                chunk.first,
                chunk.rows.stop - chunk.rows.start,
                chunk.parents,
                replay=True,
            ),
            whole[chunk.rows],
        )
        for chunk in old.stream.replay_chunks()
    ]
    for placement, inputs in replayed:
        chain.run_placed((new.session, inputs, placement))
    right(model, new, chain.run_placed(new.go_on(tokens(2, seed=5), rng))[0])


@pytest.mark.parametrize("name", ["falcon_h1", "jamba", "lfm2", "minimax", "qwen3_5_moe_text"])
def test_a_chain_may_enter_and_leave_a_span_in_the_middle(name: str, tmp_path: Path) -> None:
    model = RECURRENT[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    head = Chain(checkpoint).head
    span = Span.load(checkpoint, 0, LAYERS)
    text = tokens(9, seed=6)
    expected = whole_logits(model, text)
    full = span.new_cache()
    parts = [(0, 1), (1, 3), (3, 4)]
    caches = [span.new_cache(*part) for part in parts]
    for start, end in [(0, 5), (5, 6), (6, 9)]:
        values = text[start:end]
        for part, cache in zip(parts, caches, strict=True):
            values = span.forward([Work.behind(cache, values)], *part)[0]
        assert error(head.logits(values), expected[start:end]) <= BOUND
        values = span.forward([Work.behind(full, text[start:end])])[0]
        assert error(head.logits(values), expected[start:end]) <= BOUND


def test_a_forward_that_fails_may_be_tried_again(tmp_path: Path) -> None:
    RECURRENT["qwen3_next"].save(tmp_path / "model")
    span = Span.load(Checkpoint.open(str(tmp_path / "model")), 0, 2)
    text = tokens(6, seed=1)
    session, other = Session([span]), span.new_cache()
    cache = session.caches[0]
    span.forward([Work(cache, text[:4], session.place(4))])
    span.forward([Work(cache, text[:1], session.place(1))])  # and back behind the third token
    work = Work(cache, text[3:], session.place(3, epoch=1, root=3, parents=(3, 1, 1)))
    with pytest.raises(IndexError):
        span.forward([work, Work.behind(other, torch.tensor([10_000]))])
    rest = span.forward([work])[0]
    assert (cache.length, other.length) == (6, 0)
    expected = span.forward([Work.behind(span.new_cache(), text)])[0]
    torch.testing.assert_close(rest, expected[3:])


def test_many_rows_are_computed_again_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RECURRENT["qwen3_next"].save(tmp_path / "model")
    chain = Chain(Checkpoint.open(str(tmp_path / "model")))
    monkeypatch.setattr(spans, "MAX_REPLAYED", 3)
    session, text = chain.open(), tokens(14, seed=1)
    chain.run((session, text[:12]))
    sizes: list[int] = []
    layer = chain.spans[1]._layers[2]
    layer.register_forward_hook(lambda _, args, output: sizes.append(output.shape[1]))
    back = session.place(2, epoch=1, root=11, parents=(2, 1))
    other = torch.cat([text[:11], text[12:]])
    logits = chain.run_placed((session, text[12:], back))[0]
    assert sizes == [3, 3, 3, 2 + 2]
    assert error(logits, whole_logits(model, other)[-2:]) <= BOUND


def test_branches_are_refused(tmp_path: Path) -> None:
    RECURRENT["qwen3_next"].save(tmp_path / "model")
    span = Span.load(Checkpoint.open(str(tmp_path / "model")), 0, 2)
    session = Session([span])
    placed = session.place(3, parents=(1, 1, 2))
    with pytest.raises(SpanError, match="takes no branches"):
        span.forward([Work(session.caches[0], tokens(3, seed=1), placed)])


@pytest.mark.parametrize("name", sorted(STEPWISE))
def test_in_16_bits_they_read_as_the_miniature_does(name: str, tmp_path: Path) -> None:
    """A check of the span itself could not tell: it allows for more than a lost state changes."""
    RECURRENT[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    span = Span.load(checkpoint, 0, 2, dtype=torch.bfloat16)
    assert span.stepwise
