"""Spans and head together are the whole model, for every architecture: in chunks, after rollbacks, packed, in part."""

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, LAYERS, UNPACKED, UNSUPPORTED, VOCAB
from transformers import PreTrainedModel

from peers.cache import KVCache
from peers.span import Span, Work
from swarm.errors import SpanError, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head

BOUND = 1e-5  # of the error of a logit, relative to the largest logit


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))


def tokens(count: int, seed: int) -> torch.Tensor:
    return torch.randint(3, VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


class Chain:
    """Two spans and the head, as a swarm would run them; sessions are made by `open`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        middle = LAYERS // 2
        self.spans = [Span.load(checkpoint, 0, middle), Span.load(checkpoint, middle, LAYERS)]
        self.head = Head.load(checkpoint)

    def open(self) -> list[KVCache]:
        return [span.new_cache() for span in self.spans]

    def run(self, *works: tuple[list[KVCache], torch.Tensor]) -> list[torch.Tensor]:
        """One forward of all works through both spans; logits [n, vocab] of each."""
        values = [inputs for _, inputs in works]
        for stage, span in enumerate(self.spans):
            caches = [session[stage] for session, _ in works]
            batch = [Work(cache, cache.length, value) for cache, value in zip(caches, values, strict=True)]
            values = span.forward(batch)
        return [self.head.logits(value) for value in values]


def whole_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids[None], use_cache=False).logits[0].float()


def assert_equal_logits(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    error = ((got - expected).abs().max() / expected.abs().max()).item()
    assert error <= BOUND


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in UNSUPPORTED])
def test_two_spans_and_the_head_are_the_whole_model(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path / "model")
    chain = Chain(Checkpoint.open(str(tmp_path / "model")))
    assert [span.packs for span in chain.spans] == [name not in UNPACKED] * 2

    text = tokens(10, seed=1)
    session = chain.open()
    pieces = [(0, 4), (4, 7), (7, 8), (8, 9), (9, 10)]  # the prompt in two chunks, then token by token
    got = torch.cat([chain.run((session, text[start:end]))[0] for start, end in pieces])
    assert_equal_logits(got, whole_logits(model, text))

    # Roll back two positions and go on with other tokens, together with a younger session.
    for cache in session:
        cache.truncate(8)
    other = torch.cat([text[:8], tokens(3, seed=2)])
    neighbour, neighbour_text = chain.open(), tokens(3, seed=3)
    chain.run((neighbour, neighbour_text[:1]))
    ours, theirs = chain.run((session, other[8:]), (neighbour, neighbour_text[1:]))
    assert_equal_logits(ours, whole_logits(model, other)[8:])
    assert_equal_logits(theirs, whole_logits(model, neighbour_text)[1:])

    # Both decode in one forward, then the old one is alone again.
    other, neighbour_text = torch.cat([other, tokens(2, seed=4)]), torch.cat([neighbour_text, tokens(1, seed=5)])
    expected = whole_logits(model, other)
    if name == "phi3_longrope":  # the whole model would now turn the neighbour's first positions the other way
        ours = chain.run((session, other[-2:-1]))[0]
    else:
        ours, theirs = chain.run((session, other[-2:-1]), (neighbour, neighbour_text[-1:]))
        assert_equal_logits(theirs, whole_logits(model, neighbour_text)[-1:])
    assert_equal_logits(ours, expected[-2:-1])
    assert_equal_logits(chain.run((session, other[-1:]))[0], expected[-1:])


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_served_says_so_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path / "model")
    with pytest.raises(UnsupportedModel):
        Chain(Checkpoint.open(str(tmp_path / "model")))


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "qwen2_moe", "smollm3", "bloom"])
def test_a_chain_may_enter_and_leave_a_span_in_the_middle(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    span, tail, head = Span.load(checkpoint, 0, 4), Span.load(checkpoint, 2, 4), Head.load(checkpoint)
    text = tokens(9, seed=6)
    expected = whole_logits(model, text)
    full = span.new_cache()
    caches = [span.new_cache(0, 1), span.new_cache(1, 3), tail.new_cache(3, 4)]
    for start, end in [(0, 6), (6, 9)]:
        hidden = span.forward([Work(caches[0], start, text[start:end])], 0, 1)[0]
        hidden = span.forward([Work(caches[1], start, hidden)], 1, 3)[0]
        hidden = tail.forward([Work(caches[2], start, hidden)], 3, 4)[0]
        assert_equal_logits(head.logits(hidden), expected[start:end])
        hidden = span.forward([Work(full, start, text[start:end])])[0]
        assert_equal_logits(head.logits(hidden), expected[start:end])


@pytest.fixture
def span(tmp_path: Path) -> Span:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    return Span.load(Checkpoint.open(str(tmp_path / "model")), 0, 2)


def test_a_work_must_continue_its_cache(span: Span) -> None:
    cache = span.new_cache()
    span.forward([Work(cache, 0, tokens(3, seed=1))])
    with pytest.raises(SpanError, match="starts at position 5, its cache ends at 3"):
        span.forward([Work(cache, 5, tokens(1, seed=1))])
    with pytest.raises(SpanError, match="twice"):
        span.forward([Work(cache, 3, tokens(1, seed=1)), Work(cache, 3, tokens(1, seed=1))])
    with pytest.raises(SpanError, match="token ids"):
        span.forward([Work(cache, 3, torch.randn(1))])
    with pytest.raises(SpanError, match="hidden states"):
        span.forward([Work(span.new_cache(1, 2), 0, torch.zeros((1, 32), dtype=torch.long))], 1, 2)
    with pytest.raises(SpanError, match="the cache is for the layers"):
        span.forward([Work(span.new_cache(1, 2), 0, tokens(1, seed=1))])
    with pytest.raises(SpanError, match="not all in it"):
        span.new_cache(1, 3)
    assert cache.length == 3


def test_a_forward_that_fails_leaves_the_session_as_it_was(span: Span) -> None:
    cache = span.new_cache()
    text = tokens(5, seed=1)
    before = span.forward([Work(cache, 0, text[:3])])[0]
    with pytest.raises(IndexError):
        span.forward([Work(cache, 3, torch.tensor([VOCAB]))])
    rest = span.forward([Work(cache, 3, text[3:])])[0]
    expected = span.forward([Work(span.new_cache(), 0, text)])[0]
    torch.testing.assert_close(torch.cat([before, rest]), expected)


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    for first, last in [(0, 5), (2, 2), (-1, 2)]:
        with pytest.raises(SpanError, match="has the layers"):
            Span.load(checkpoint, first, last)


def test_only_the_tensors_of_the_span_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    read: list[str] = []
    tensor = Checkpoint.tensor

    def noting(self: Checkpoint, name: str) -> torch.Tensor:
        read.append(name)
        return tensor(self, name)

    monkeypatch.setattr(Checkpoint, "tensor", noting)
    progress: list[tuple[int, int]] = []
    middle = Span.load(checkpoint, 1, 3, progress=lambda done, total: progress.append((done, total)))
    assert sorted(read) == [name for name in checkpoint.tensor_names() if ".layers.1." in name or ".layers.2." in name]
    weights = sum(tensor(checkpoint, name).nbytes for name in read)
    assert progress[-1] == (weights, weights)
    assert progress == sorted(progress)
    assert weights <= middle.nbytes < weights + 4096  # buffers come on top, such as rotary frequencies

    read.clear()
    Span.load(checkpoint, 0, 1)
    assert {name for name in read if ".layers." not in name} == {"model.embed_tokens.weight"}
    assert {name for name in read if ".layers." in name} == {n for n in checkpoint.tensor_names() if ".layers.0." in n}

    read.clear()
    Head.load(checkpoint)
    assert sorted(read) == ["lm_head.weight", "model.norm.weight"]


def test_a_span_in_16_bits(tmp_path: Path) -> None:
    ARCHITECTURES["gemma2"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    exact, half = Span.load(checkpoint, 0, 2), Span.load(checkpoint, 0, 2, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.nbytes_per_token * 2 == exact.nbytes_per_token
    text = tokens(6, seed=1)
    expected = exact.forward([Work(exact.new_cache(), 0, text)])[0]
    got = half.forward([Work(half.new_cache(), 0, text)])[0]
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).norm() / expected.norm() < 0.05


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    names = [name for name in checkpoint.tensor_names() if name != "model.layers.1.mlp.up_proj.weight"]
    monkeypatch.setattr(checkpoint, "tensor_names", lambda: names)
    with pytest.raises(UnsupportedModel, match=r"lacks the weights of model\.layers\.1\.mlp\.up_proj\.weight"):
        Span.load(checkpoint, 0, 2)
    Span.load(checkpoint, 2, 4)
