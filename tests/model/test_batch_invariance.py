"""In 16 bits on a CPU a token's states are the same bits, whatever else is in its frame."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from helpers.models import COMMON, Architecture
from swarm.model.attention import packed_attention, running
from swarm.model.batch_invariance import VECTOR_ROWS, groups, pair_rows
from swarm.model.cache import KVCache, PackedCache
from swarm.model.checkpoint import Checkpoint
from swarm.model.masks import AttentionView
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.wire.token_tree import Placement, TokenTree

# oneDNN multiplies very small matrices by other kernels, which no published model needs.
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "sliding_window": 24}
PROMPT, TOKENS = 45, 96
SEEN_ON = ("AVX2", "AVX512")  # other CPUs have kernels that we have not tried

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in SEEN_ON, reason="not tried on such a CPU"
)


def _span(kind: str, folder: Path, more: dict[str, Any]) -> Span:
    Architecture(kind, {**WIDE, **more}).save(folder)
    checkpoint = Checkpoint.open(str(folder))
    return Span.load(checkpoint, 0, checkpoint.num_layers, dtype=torch.bfloat16)


def _run(span: Span, text: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the states of a text that comes in frames of these sizes."""
    cache = span.new_cache(limit=len(text))
    pieces = text.split_with_sizes(list(sizes))
    return torch.cat([span.forward([Work.behind(cache, piece)])[0] for piece in pieces])


def _grow_tree(span: Span, prompt: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield texts that lie on the branches of a tree behind a prompt, and the last state of each.

    The tree grows in two frames. Then a branch becomes the text, and grows others.
    """
    cache, tree = span.new_cache(), TokenTree()
    texts = {0: prompt[:0]}
    root = len(prompt)
    frames = [
        (0, 0, prompt, (1,) * root),
        (0, root, prompt[:5], (1, 1, 3, 2, 2)),
        (0, root, prompt[5:8], (2, 2, 2)),
        (1, root + 5, prompt[8:12], (4, 1, 2, 1)),
    ]
    for epoch, root, tokens, parents in frames:
        first = len(texts)
        placement = tree.admit(epoch, root, first, len(tokens), parents)
        assert placement is not None
        (states,) = span.forward([Work(cache, tokens, placement)])
        for serial, parent in enumerate(parents, first):
            at = serial - first
            texts[serial] = torch.cat((texts[serial - parent], tokens[at : at + 1]))
            if first > 1:
                yield texts[serial], states[at]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": COMMON["num_attention_heads"]}),
        ("gemma2", {}),
        ("gemma3_text", {}),
        ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}),
    ],
)
def test_states_do_not_depend_on_the_frame(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    span = _span(kind, tmp_path / "model", more)
    assert span.packs
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(3, span.vocab_size, (PROMPT + TOKENS,), generator=generator)
    alone = _run(span, text, [PROMPT, *[1] * TOKENS])
    for size in (2, 3, 8, 16, 32):
        assert torch.equal(_run(span, text, [PROMPT, *[size] * (TOKENS // size)]), alone), size

    # beside neighbours, one of which reads a prompt, and after drafts that were wrong
    cache, neighbour = span.new_cache(), span.new_cache()
    span.forward([Work.behind(cache, text[:PROMPT])])
    span.forward([Work.behind(neighbour, text[:7])])
    wrong = text.flip(0)[:9]
    both = span.forward([Work.behind(neighbour, wrong), Work.behind(cache, wrong)])
    assert not torch.equal(both[1], alone[PROMPT : PROMPT + 9])
    back = Work.at(cache, PROMPT, text[PROMPT : PROMPT + 9])
    third = Work.behind(span.new_cache(), text[:70])
    states = span.forward([third, Work.behind(neighbour, text[:30]), back])
    assert torch.equal(states[0], _run(span, text[:70], [70]))
    assert torch.equal(states[2], alone[PROMPT : PROMPT + 9])

    for line, state in _grow_tree(span, text[:PROMPT]):
        plain = _run(span, line, [PROMPT, *[1] * (len(line) - PROMPT)])
        assert torch.equal(state, plain[-1]), line[PROMPT:]


def test_a_branch_is_attended_to_as_its_text_alone() -> None:
    """Many sums are compared: in another order, few of them are rounded to another number."""
    random, generator = Random(1), torch.Generator().manual_seed(1)
    heads, shared, width, held, count = 64, 32, 128, 200, 32
    numbers = torch.randn(2 * shared + heads, held + count, width, generator=generator)
    keys, values, query = numbers.bfloat16().split_with_sizes([shared, shared, heads])

    def attend(rows: Sequence[int], placement: Placement) -> torch.Tensor:
        """Return [n, heads, width] for the last of some rows, which are placed so."""
        cache, new = KVCache(0, 1), len(placement.positions)
        before, own = list(rows[:-new]), list(rows[-new:])
        cache.write(0, keys[:, before], values[:, before])
        cache.advance(len(before))
        view = AttentionView.of(placement, new, torch.device("cpu"), by_lines=True)
        packed = PackedCache([cache], [view], pads=True)
        cached = packed.update(keys[None, :, own], values[None, :, own], 0)
        with running(packed):
            return packed_attention(torch.nn.Module(), query[None, :, own], *cached, None)[0][0]

    sees: list[int] = []
    for token in range(count):
        parent = random.randrange(-1, token)
        sees.append((0 if parent < 0 else sees[parent]) | 1 << token)
    positions = tuple(held + each.bit_count() - 1 for each in sees)
    rows = range(held + count)
    tree = attend(rows, Placement(held, (), positions, held, tuple(sees)))
    for token, (each, position) in enumerate(zip(sees, positions, strict=True)):
        path = [row for row in rows if row < held or each >> row - held & 1]
        alone = attend(path, Placement(position, (), (position,), position, None))
        assert torch.equal(tree[token], alone[0]), token


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([1, 256, 9, 33], [[0, 2], [1, 3]]),
        ([30, 2, 1, 31, 32], [[0, 1], [2, 3], [4]]),
        ([40], [[0]]),
    ],
)
def test_long_frames_run_by_themselves(rows: list[int], expected: list[list[int]]) -> None:
    assert groups(rows) == expected


def test_padding_is_zero_whatever_was_there() -> None:
    cache = KVCache(0, 1)
    rows = torch.ones((1, 40, 8), dtype=torch.bfloat16)
    cache.write(0, rows * torch.nan, rows * torch.inf, pads=True)  # and the forward fails
    keys, values = cache.write(0, rows[:, :3], rows[:, :3], pads=True)
    assert keys.shape[1] == values.shape[1] == VECTOR_ROWS
    for written in (keys, values):
        assert written[:, :3].eq(1).all()
        assert written[:, 3:].eq(0).all()


def test_padding_takes_no_room_that_the_session_has_not_reserved() -> None:
    cache = KVCache(0, 1, limit=VECTOR_ROWS + 5)
    rows = torch.ones((1, VECTOR_ROWS + 2, 8), dtype=torch.bfloat16)
    keys, _ = cache.write(0, rows, rows, pads=True)
    assert keys.shape[1] == 2 * VECTOR_ROWS
    assert keys.sum() == rows.sum()
    assert cache.nbytes == cache.limit * cache.nbytes_per_token


def test_exact_dtypes_are_left_alone() -> None:
    cache = KVCache(0, 1)
    rows = torch.ones((1, 3, 8))
    assert cache.write(0, rows, rows, pads=True)[0].shape[1] == 3
    layer = torch.nn.Linear(8, 8)
    pair_rows(layer)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 8), (3, 8), (1, 3, 8), (0, 8)])
def test_a_layer_gives_as_many_rows_as_it_gets(shape: tuple[int, ...]) -> None:
    layer = torch.nn.Linear(8, 5, dtype=torch.bfloat16)
    rows = torch.randn(shape, dtype=torch.bfloat16)
    expected = layer(rows)
    pair_rows(layer)
    got = layer(rows)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected)
