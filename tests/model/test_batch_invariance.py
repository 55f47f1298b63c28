"""In 16 bits on a CPU a token's states are the same bits, whatever else is in its frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.models import COMMON, Architecture
from swarm.model.batch_invariance import VECTOR_ROWS, groups, pair_rows
from swarm.model.cache import KVCache
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work

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
