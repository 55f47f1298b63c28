"""Spans and head that are read from a checkpoint are together the whole model.

They are so in chunks, after rollbacks, packed, in part, and along every path of a tree of tokens.
`test_every_architecture.py` shows it for every model type, on models that lie nowhere.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.local_chain import Chain, Session, assert_equal_logits, tokens, whole_logits
from helpers.models import ARCHITECTURES, LAYERS, UNPACKED, UNSUPPORTED, VOCAB, WINDOW
from swarm.audit.tolerance import distances, tolerance
from swarm.errors import SpanError, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.routing.cuts import Cuts
from swarm.wire.token_tree import Placement


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "cache"))


# Of each way in which tensors lie in a checkpoint, and in which sessions share a forward, one.
SAVED = (
    "bloom",
    "deepseek_v3",
    "gemma3_text",
    "glm_moe_dsa",
    "gpt_oss",
    "llama_tied",
    "mixtral",
    "nanochat",
    "phi3",
    "phi3_longrope",
    "qwen2_moe",
)


@pytest.mark.parametrize("name", SAVED)
def test_two_spans_and_the_head_are_the_whole_model(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path / "model")
    chain = Chain(Checkpoint.open(str(tmp_path / "model")))
    assert [(span.packs, span.branches) for span in chain.spans] == [
        (name not in UNPACKED,) * 2
    ] * 2

    text = tokens(10, seed=1)
    session = chain.open()
    # the prompt in two chunks, then token by token
    pieces = [(0, 4), (4, 7), (7, 8), (8, 9), (9, 10)]
    got = torch.cat([chain.run((session, text[start:end]))[0] for start, end in pieces])
    assert_equal_logits(got, whole_logits(model, text))

    # Roll back two positions and go on with other tokens, together with a younger session.
    other = torch.cat([text[:8], tokens(3, seed=2)])
    neighbour, neighbour_text = chain.open(), tokens(3, seed=3)
    chain.run((neighbour, neighbour_text[:1]))
    back = session.place(3, epoch=1, root=8, parents=(3, 1, 1))
    ours, theirs = chain.run_placed(
        (session, other[8:], back), (neighbour, neighbour_text[1:], neighbour.place(2))
    )
    assert_equal_logits(ours, whole_logits(model, other)[8:])
    assert_equal_logits(theirs, whole_logits(model, neighbour_text)[1:])

    # Both decode in one forward, then the old one is alone again.
    other, neighbour_text = (
        torch.cat([other, tokens(2, seed=4)]),
        torch.cat([neighbour_text, tokens(1, seed=5)]),
    )
    expected = whole_logits(model, other)
    # the whole model would now turn the neighbour's first positions the other way
    if name == "phi3_longrope":
        ours = chain.run((session, other[-2:-1]))[0]
    else:
        ours, theirs = chain.run((session, other[-2:-1]), (neighbour, neighbour_text[-1:]))
        assert_equal_logits(theirs, whole_logits(model, neighbour_text)[-1:])
    assert_equal_logits(ours, expected[-2:-1])
    assert_equal_logits(chain.run((session, other[-1:]))[0], expected[-1:])


class Tree:
    """Tokens that a session holds behind its prompt, in a random tree."""

    def __init__(self, session: Session, prompt: torch.Tensor, rng: random.Random) -> None:
        self.session = session
        self.rng = rng
        self.root = len(prompt)
        # By serial: the tokens that lead to it, its own included.
        self.paths = {self.root: prompt.tolist()}

    def grow(self) -> tuple[torch.Tensor, Placement]:
        """Add tokens behind any of the last ones; now and then move the root, and prune."""
        if self.rng.random() < 0.4:
            depth = len(self.paths[self.root]) + 1
            self.root = self.rng.choice(
                [serial for serial, path in self.paths.items() if len(path) <= depth]
            )
            stem = self.paths[self.root]
            self.paths = {
                serial: path for serial, path in self.paths.items() if path[: len(stem)] == stem
            }
        first = self.session.stream.last + 1
        new = tokens(self.rng.randint(1, 4), seed=first)
        parents = []
        for serial, token in enumerate(new.tolist(), first):
            parent = self.rng.choice(list(self.paths)[-5:])
            parents.append(serial - parent)
            self.paths[serial] = [*self.paths[parent], token]
        return new, self.session.place(len(new), root=self.root, parents=parents)


@pytest.mark.parametrize("name", [name for name in SAVED if name not in UNPACKED])
def test_every_token_of_a_tree_gets_what_its_path_alone_gives(name: str, tmp_path: Path) -> None:
    """Several frames, prunes between, beside a neighbour, paths longer than a sliding window."""
    model = ARCHITECTURES[name].save(tmp_path / "model")
    chain = Chain(Checkpoint.open(str(tmp_path / "model")))
    session, neighbour = chain.open(), chain.open()
    prompt, neighbours = tokens(WINDOW + 2, seed=7), tokens(10, seed=8)
    chain.run((session, prompt))
    tree, moved, theirs = Tree(session, prompt, random.Random(23)), 0, []
    for token in neighbours:
        new, placed = tree.grow()
        moved += len(placed.keep)
        ours, of_neighbour = chain.run_placed(
            (session, new, placed), (neighbour, token[None], neighbour.place(1))
        )
        for logits, path in zip(ours, list(tree.paths.values())[-len(new) :], strict=True):
            assert_equal_logits(logits, whole_logits(model, torch.tensor(path))[-1])
        theirs.append(of_neighbour)
    assert moved > 10
    assert_equal_logits(torch.cat(theirs), whole_logits(model, neighbours))


class Waits(TorchDispatchMode):
    """Notes the operations that would let the host wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        by_mask = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in self.WAITING or by_mask:
            self.seen.append(name)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "gpt_oss"])
def test_no_layer_waits_for_the_device(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path / "model")
    chain = Chain(Checkpoint.open(str(tmp_path / "model")))
    session, neighbour = chain.open(), chain.open()
    chain.run((session, tokens(8, seed=1)))
    # two branches: 9, and 10 with 11 and 12 behind it
    fork = session.place(4, root=8, parents=(1, 2, 1, 2))
    with Waits() as waits:
        assert bool(torch.ones(1).any())  # it does notice
        behind = [Work.behind(neighbour.caches[0], tokens(3, seed=2))]
        chain.spans[0].forward([Work(session.caches[0], tokens(4, seed=3), fork), *behind])
        pruned = session.place(1, root=10, parents=(1,))
        assert pruned.keep
        chain.spans[0].forward([Work(session.caches[0], tokens(1, seed=4), pruned)])
    assert waits.seen == ["_local_scalar_dense"]


@pytest.mark.parametrize("name", UNPACKED)
def test_a_model_that_takes_no_branches_says_so(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path / "model")
    span = Span.load(Checkpoint.open(str(tmp_path / "model")), 0, 2)
    session = Session([span])
    placed = session.place(3, parents=(1, 1, 2))
    with pytest.raises(SpanError, match="takes no branches"):
        span.forward([Work(session.caches[0], tokens(3, seed=1), placed)])


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_served_says_so_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path / "model")
    with pytest.raises(UnsupportedModel):
        Chain(Checkpoint.open(str(tmp_path / "model")))


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "qwen2_moe", "smollm3", "bloom"])
def test_a_chain_may_enter_and_leave_a_span_in_the_middle(name: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    span, tail, head = (
        Span.load(checkpoint, 0, 4),
        Span.load(checkpoint, 2, 4),
        Head.load(checkpoint),
    )
    text = tokens(9, seed=6)
    expected = whole_logits(model, text)
    full = span.new_cache()
    caches = [span.new_cache(0, 1), span.new_cache(1, 3), tail.new_cache(3, 4)]
    for start, end in [(0, 6), (6, 9)]:
        hidden = span.forward([Work.behind(caches[0], text[start:end])], 0, 1)[0]
        hidden = span.forward([Work.behind(caches[1], hidden)], 1, 3)[0]
        hidden = tail.forward([Work.behind(caches[2], hidden)], 3, 4)[0]
        assert_equal_logits(head.logits(hidden), expected[start:end])
        hidden = span.forward([Work.behind(full, text[start:end])])[0]
        assert_equal_logits(head.logits(hidden), expected[start:end])


def test_layers_that_hand_on_more_than_hidden_states_are_not_parted(tmp_path: Path) -> None:
    ARCHITECTURES["glm_moe_dsa_shared"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    span = Span.load(checkpoint, 0, LAYERS)
    assert span.cuts == Cuts(LAYERS, (2,))
    for first, last in ((0, 1), (1, LAYERS)):
        with pytest.raises(SpanError, match="only before the layers 2"):
            Span.load(checkpoint, first, last)
        with pytest.raises(SpanError, match="only before the layers 2"):
            span.new_cache(first, last)


@pytest.fixture
def span(tmp_path: Path) -> Span:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    return Span.load(Checkpoint.open(str(tmp_path / "model")), 0, 2)


def test_a_work_must_fit_its_cache(span: Span) -> None:
    cache = span.new_cache(limit=4)
    span.forward([Work.behind(cache, tokens(3, seed=1))])
    one = tokens(1, seed=1)
    with pytest.raises(SpanError, match="starts at row 5, its cache ends at 3"):
        span.forward([Work(cache, one, Placement(5, (), (5,), 5, None))])
    with pytest.raises(SpanError, match="its cache ends at 3 and may hold 4"):
        span.forward([Work.behind(cache, tokens(2, seed=1))])
    with pytest.raises(SpanError, match="twice"):
        span.forward([Work.behind(cache, one), Work.behind(cache, one)])
    with pytest.raises(SpanError, match="token ids"):
        span.forward([Work.behind(cache, torch.randn(1))])
    with pytest.raises(SpanError, match="hidden states"):
        span.forward(
            [Work.behind(span.new_cache(1, 2), torch.zeros((1, 32), dtype=torch.long))], 1, 2
        )
    with pytest.raises(SpanError, match="the cache is for the layers"):
        span.forward([Work.behind(span.new_cache(1, 2), one)])
    with pytest.raises(SpanError, match="not all in it"):
        span.new_cache(1, 3)
    assert cache.length == 3


def test_a_forward_that_fails_may_be_tried_again(span: Span) -> None:
    cache, other = span.new_cache(), span.new_cache()
    text = tokens(6, seed=1)
    span.forward([Work.behind(cache, text)])
    # the text is now its tokens 0, 4 and 5
    work = Work(cache, text[3:], Placement(3, (4, 5), (3, 4, 5), 3, None))
    with pytest.raises(IndexError):
        span.forward([work, Work.behind(other, torch.tensor([VOCAB]))])
    rest = span.forward([work])[0]
    assert (cache.length, other.length) == (6, 0)
    again = span.new_cache()
    span.forward([Work.behind(again, text)])
    torch.testing.assert_close(rest, span.forward([Work(again, text[3:], work.placement)])[0])


def test_a_forward_that_fails_leaves_the_session_as_it_was(span: Span) -> None:
    cache = span.new_cache()
    text = tokens(5, seed=1)
    before = span.forward([Work.behind(cache, text[:3])])[0]
    with pytest.raises(IndexError):
        span.forward([Work.behind(cache, torch.tensor([VOCAB]))])
    rest = span.forward([Work.behind(cache, text[3:])])[0]
    expected = span.forward([Work.behind(span.new_cache(), text)])[0]
    torch.testing.assert_close(torch.cat([before, rest]), expected)


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    for first, last in [(0, 5), (2, 2), (-1, 2)]:
        with pytest.raises(SpanError, match="has the layers"):
            Span.load(checkpoint, first, last)


def test_only_the_tensors_of_the_span_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    read: list[str] = []
    tensor = Checkpoint.tensor

    def noting(self: Checkpoint, name: str) -> torch.Tensor:
        read.append(name)
        return tensor(self, name)

    monkeypatch.setattr(Checkpoint, "tensor", noting)
    progress: list[tuple[int, int]] = []
    middle = Span.load(
        checkpoint, 1, 3, progress=lambda done, total: progress.append((done, total))
    )
    assert sorted(read) == [
        name for name in checkpoint.tensor_names() if ".layers.1." in name or ".layers.2." in name
    ]
    weights = sum(tensor(checkpoint, name).nbytes for name in read)
    assert progress[-1] == (weights, weights)
    assert progress == sorted(progress)
    # buffers come on top, such as rotary frequencies
    assert weights <= middle.nbytes < weights + 4096

    read.clear()
    Span.load(checkpoint, 0, 1)
    assert {name for name in read if ".layers." not in name} == {"model.embed_tokens.weight"}
    assert {name for name in read if ".layers." in name} == {
        n for n in checkpoint.tensor_names() if ".layers.0." in n
    }

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
    expected = exact.forward([Work.behind(exact.new_cache(), text)])[0]
    got = half.forward([Work.behind(half.new_cache(), text)])[0]
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_spans_in_bfloat16_are_the_whole_model_in_bfloat16(name: str, tmp_path: Path) -> None:
    """In chunks of any size, within what audits tolerate of honest peers."""
    model: Any = ARCHITECTURES[name].save(tmp_path / "model").to(torch.bfloat16)
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    text = tokens(40, seed=1)
    with torch.inference_mode():
        expected = model.model(input_ids=text[None]).last_hidden_state[0]
    span = Span.load(checkpoint, 0, checkpoint.num_layers, dtype=torch.bfloat16)
    for size in (1, 9, 40):
        cache = span.new_cache()
        outputs = [span.forward([Work.behind(cache, chunk)])[0] for chunk in text.split(size)]
        normed = Head.load(checkpoint).normed(torch.cat(outputs))
        assert tolerance({"bfloat16"}, experts=False).holds(distances(normed, expected)), size


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    names = [
        name for name in checkpoint.tensor_names() if name != "model.layers.1.mlp.up_proj.weight"
    ]
    monkeypatch.setattr(checkpoint, "tensor_names", lambda: names)
    with pytest.raises(
        UnsupportedModel, match=r"lacks the weights of model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        Span.load(checkpoint, 0, 2)
    Span.load(checkpoint, 2, 4)
