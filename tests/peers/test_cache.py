"""A session's cache: it grows in blocks, goes back, and keeps what it held."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.attention import MaskRule, attend
from peers.cache import BLOCK_TOKENS, KVCache, PackedCache
from swarm.errors import SpanError

HEADS, KEY_DIM, VALUE_DIM = 2, 4, 6


def states(count: int, base: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of `count` positions that can be told apart."""
    positions = torch.arange(base, base + count, dtype=torch.float32)[None, :, None]
    return positions.expand(HEADS, count, KEY_DIM), -positions.expand(HEADS, count, VALUE_DIM)


def append(cache: KVCache, count: int, base: int) -> tuple[torch.Tensor, torch.Tensor]:
    key, value = states(count, base)
    written = [cache.write(layer, key + layer, value - layer) for layer in range(cache.first, cache.last)]
    cache.advance(count)
    keys, values = written[-1]
    return keys - (cache.last - 1), values + (cache.last - 1)


def test_it_grows_in_blocks_and_keeps_what_it_held() -> None:
    cache = KVCache(3, 5)
    for step in range(2 * BLOCK_TOKENS + 3):
        keys, values = append(cache, 1, step)
    expected_keys, expected_values = states(cache.length)
    torch.testing.assert_close(keys, expected_keys)
    torch.testing.assert_close(values, expected_values)
    assert cache.nbytes_per_token == 2 * HEADS * (KEY_DIM + VALUE_DIM) * 4
    assert cache.nbytes == cache.nbytes_per_token * 3 * BLOCK_TOKENS


def test_an_empty_cache_holds_nothing() -> None:
    cache = KVCache(0, 4)
    assert (cache.length, cache.nbytes, cache.nbytes_per_token) == (0, 0, 0)


def test_going_back_is_setting_a_length() -> None:
    cache = KVCache(0, 2)
    append(cache, 10, 0)
    cache.truncate(6)
    keys, _ = append(cache, 2, 100)
    assert keys[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 100, 101]


@pytest.mark.parametrize("length", [-1, 4])
def test_going_back_to_where_nothing_was_is_refused(length: int) -> None:
    cache = KVCache(0, 1)
    append(cache, 3, 0)
    with pytest.raises(SpanError, match="cannot go back"):
        cache.truncate(length)
    assert cache.length == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.floats(0, 1)), max_size=12))
def test_it_behaves_as_a_list(steps: list[tuple[int, float]]) -> None:
    cache, model = KVCache(0, 1), []
    for base, (count, keep) in enumerate(steps):
        model = model[: int(keep * len(model))]
        cache.truncate(len(model))
        model += [1000 * base + index for index in range(count)]
        keys, values = append(cache, count, 1000 * base)
        assert keys[0, :, 0].tolist() == model
        assert values[-1, :, -1].tolist() == [-entry for entry in model]


def test_a_packed_row_is_dealt_out_to_its_sessions() -> None:
    first, second = KVCache(0, 1), KVCache(0, 1)
    append(first, 3, 0)
    packed = PackedCache([first, second], [1, 2])
    key, value = states(3, 50)
    packed.update(key[None], value[None], 0)
    assert packed.pending is not None
    assert [keys[0, :, 0].tolist() for keys, _ in packed.pending] == [[0, 1, 2, 50], [51, 52]]
    assert (first.length, second.length) == (3, 0)


def plain_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    start: int,
    window: int,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention as the papers write it: head by head, row by row."""
    heads, count = query.shape[1:3]
    out = torch.empty(1, count, heads, values.shape[-1])
    for head in range(heads):
        group = head * keys.shape[0] // heads
        for row in range(count):
            seen = slice(max(0, start + row + 1 - window), start + row + 1)
            scores = keys[group, seen] @ query[0, head, row] * 0.3
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat([scores, sinks[head : head + 1]])
            shares = torch.softmax(scores, dim=0)[: seen.stop - seen.start]
            out[0, row, head] = shares @ values[group, seen]
    return out


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [3, 1000])
@pytest.mark.parametrize("count", [1, 4])
def test_attention_of_one_session(softcap: float | None, sinks: bool, window: int, count: int) -> None:
    generator = torch.Generator().manual_seed(3)
    start, heads = 5, 6
    query = torch.randn(1, heads, count, KEY_DIM, generator=generator)
    keys = torch.randn(HEADS, start + count, KEY_DIM, generator=generator)
    values = torch.randn(HEADS, start + count, VALUE_DIM, generator=generator)
    sink = torch.randn(heads, generator=generator) if sinks else None
    rule = MaskRule(lambda batch, head, q, k: (k <= q) & (k > q - window))
    mask = rule.draw(0, start, count, heads // HEADS, query)
    got = attend(query, keys, values, mask, 0.3, softcap, sink)
    torch.testing.assert_close(got, plain_attention(query, keys, values, start, window, softcap, sink))
