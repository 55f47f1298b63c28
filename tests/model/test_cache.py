"""A session's cache grows in blocks up to its limit, rolls back, moves rows, and loses none."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import SpanError
from swarm.model.cache import BLOCK_TOKENS, KVCache, PackedCache
from swarm.model.masks import AttentionView, NotPackable
from swarm.wire.token_tree import Placement

HEADS, KEY_DIM, VALUE_DIM = 2, 4, 6


def states(count: int, base: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of `count` tokens that can be told apart."""
    positions = torch.arange(base, base + count, dtype=torch.float32)[None, :, None]
    return positions.expand(HEADS, count, KEY_DIM), -positions.expand(HEADS, count, VALUE_DIM)


def append(cache: KVCache, count: int, base: int) -> tuple[torch.Tensor, torch.Tensor]:
    key, value = states(count, base)
    written = [
        cache.write(layer, key + layer, value - layer) for layer in range(cache.first, cache.last)
    ]
    cache.advance(count)
    keys, values = written[-1]
    return keys - (cache.last - 1), values + (cache.last - 1)


def placement(start: int, *keep: int) -> Placement:
    return Placement(start, keep, (), start, None)


def test_it_grows_in_blocks_and_keeps_what_it_held() -> None:
    cache = KVCache(3, 5)
    for step in range(2 * BLOCK_TOKENS + 3):
        keys, values = append(cache, 1, step)
    expected_keys, expected_values = states(cache.length)
    torch.testing.assert_close(keys, expected_keys)
    torch.testing.assert_close(values, expected_values)
    assert cache.nbytes_per_token == 2 * HEADS * (KEY_DIM + VALUE_DIM) * 4
    assert cache.nbytes == cache.nbytes_per_token * 3 * BLOCK_TOKENS


def test_it_never_has_more_room_than_it_may() -> None:
    limit = 20 * BLOCK_TOKENS + 7
    cache = KVCache(0, 1, limit)
    for step in range(limit):
        append(cache, 1, step)
        room = cache.nbytes // cache.nbytes_per_token
        assert room % BLOCK_TOKENS == 0 or room == limit
        assert cache.length <= room <= limit
    assert not cache.fits(placement(limit), 1)
    assert cache.fits(placement(limit - 1), 1)


def test_an_empty_cache_holds_nothing() -> None:
    cache = KVCache(0, 4)
    assert (cache.length, cache.nbytes, cache.nbytes_per_token) == (0, 0, 0)
    cache.place(placement(0))
    assert (cache.length, cache.nbytes) == (0, 0)


def test_going_back_is_setting_a_length() -> None:
    cache = KVCache(0, 2)
    append(cache, 10, 0)
    cache.place(placement(6))
    keys, _ = append(cache, 2, 100)
    assert keys[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 100, 101]


def test_a_copy_goes_its_own_way() -> None:
    cache = KVCache(3, 5, limit=4 * BLOCK_TOKENS)
    append(cache, 10, 0)
    copy = cache.copy()
    assert (copy.first, copy.last, copy.limit, copy.length) == (3, 5, 4 * BLOCK_TOKENS, 10)
    mine, _ = append(cache, 2, 100)
    theirs, _ = append(copy, 2, 200)
    assert mine[0, 8:, 0].tolist() == [8, 9, 100, 101]
    assert theirs[0, 8:, 0].tolist() == [8, 9, 200, 201]
    assert KVCache(0, 1).copy().length == 0


@torch.inference_mode()  # as forwards are
@pytest.mark.parametrize(
    ("where", "rows"),
    [(placement(4), (0, 1, 2, 3)), (placement(4, 4, 6), (0, 1, 4, 6)), (placement(7), range(7))],
)
def test_a_fork_holds_the_rows_that_are_kept_and_leaves_the_other_as_it_was(
    where: Placement, rows: Sequence[int]
) -> None:
    cache = KVCache(0, 2)
    append(cache, 7, 0)
    fork = KVCache(0, 2, limit=9)
    steps = fork.fork(cache, where)
    assert next(steps) is None
    assert fork.length == 0  # not yet
    assert len(list(steps)) == 3  # keys and values of two layers
    assert (fork.length, cache.length) == (len(rows), 7)
    keys, values = append(fork, 2, 50)
    expected = torch.tensor([*rows, 50.0, 51.0])
    assert keys[0, :, 0].tolist() == expected.tolist()
    assert values[0, :, 0].tolist() == (-expected).tolist()
    assert fork.nbytes == fork.nbytes_per_token * 9  # never more than its limit
    keys, _ = append(cache, 1, 7)
    assert keys[0, :, 0].tolist() == [float(row) for row in range(8)]


@pytest.mark.parametrize("where", [placement(8), placement(4, 2, 6), placement(6)])
def test_a_fork_takes_no_rows_that_are_not_there_or_that_it_has_no_room_for(
    where: Placement,
) -> None:
    cache = KVCache(0, 1)
    append(cache, 7, 0)
    with pytest.raises(SpanError):
        list(KVCache(0, 1, limit=5).fork(cache, where))


def test_rows_that_are_kept_move_together_in_all_layers() -> None:
    cache = KVCache(4, 7)
    append(cache, 10, 0)
    cache.place(placement(7, 4, 5, 8, 9))
    key, value = states(1, 100)
    for layer in range(4, 7):
        keys, values = cache.write(layer, key, value)
        assert (keys[1, :-1, 0] - layer).tolist() == [0, 1, 2, 4, 5, 8, 9]
        assert (values[0, :-1, 5] + layer).tolist() == [0, -1, -2, -4, -5, -8, -9]


def test_what_was_placed_may_be_placed_again_until_something_was_computed() -> None:
    """As after a forward that failed: rows that have moved are not moved twice."""
    cache = KVCache(0, 1)
    append(cache, 6, 0)
    placed = placement(3, 3, 5)
    for _ in range(2):
        assert cache.fits(placed, 1)
        cache.place(placed)
    keys, _ = append(cache, 1, 100)
    assert keys[0, :, 0].tolist() == [0, 3, 5, 100]
    assert not cache.fits(placed)


@pytest.mark.parametrize(
    ("start", "keep"),
    [(-1, ()), (4, ()), (3, (3,)), (1, (0,)), (2, (0, 1)), (1, (1, 2)), (2, (2, 3))],
)
def test_rows_that_are_not_there_or_would_move_forward_are_refused(
    start: int, keep: tuple[int, ...]
) -> None:
    cache = KVCache(0, 1)
    append(cache, 3, 0)
    assert not cache.fits(placement(start, *keep))
    with pytest.raises(SpanError, match="cannot keep"):
        cache.place(placement(start, *keep))
    assert cache.length == 3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.floats(0, 1), st.sets(st.integers(0, 40), max_size=9)),
        max_size=9,
    )
)
def test_it_behaves_as_a_list(steps: list[tuple[int, float, set[int]]]) -> None:
    cache, model = KVCache(0, 1), []
    for base, (count, share, further) in enumerate(steps):
        kept = int(share * len(model))
        keep = sorted(kept + 1 + more for more in further if kept + 1 + more < len(model))
        cache.place(placement(kept + len(keep), *keep))
        model = model[:kept] + [model[row] for row in keep]
        model += [1000 * base + index for index in range(count)]
        keys, values = append(cache, count, 1000 * base)
        assert keys[0, :, 0].tolist() == model
        assert values[-1, :, -1].tolist() == [-entry for entry in model]


@pytest.fixture
def two() -> tuple[list[KVCache], list[AttentionView]]:
    """Two sessions in one forward: one token behind three, and the first two of another one."""
    caches = [KVCache(0, 1), KVCache(0, 1)]
    append(caches[0], 3, 0)
    return caches, [AttentionView(3, 1, 3, None), AttentionView(0, 2, 0, None)]


Two = tuple[list[KVCache], list[AttentionView]]


def test_a_packed_row_is_dealt_out_to_its_sessions(two: Two) -> None:
    packed = PackedCache(*two)
    key, value = states(3, 50)
    returned = packed.update(key[None], value[None], 0)
    assert [each.shape[2] for each in returned] == [3, 3]
    sessions = packed.sessions(*returned)
    assert [keys[0, :, 0].tolist() for keys, _ in sessions] == [[0, 1, 2, 50], [51, 52]]
    assert [cache.length for cache in two[0]] == [3, 0]
    packed.update(key[None], value[None], 1)
    assert packed.sessions(*returned) is sessions  # a layer may attend to an earlier one's
    with pytest.raises(NotPackable):
        packed.sessions(returned[0] + 1, returned[1])


def test_a_layer_gets_rows_of_another_dtype_as_new_ones_alone() -> None:
    """Else all rows would be made wide at every forward, and nothing reads them so."""
    cache = KVCache(0, 1, dtype=torch.bfloat16)
    append(cache, 3, 0)
    packed = PackedCache([cache], [AttentionView(3, 2, 3, None)])
    key, value = (each[None] for each in states(2, 50))
    returned = packed.update(key, value, 0)
    assert returned[0] is key
    assert returned[1] is value
    ((keys, values),) = packed.sessions(*returned)
    assert keys.dtype == values.dtype == torch.bfloat16
    assert keys[0, :, 0].tolist() == [0, 1, 2, 50, 51]


def test_a_layer_may_change_the_rows_of_all_sessions_before_it_attends_to_them(two: Two) -> None:
    packed = PackedCache(*two, gathers=True)
    key, value = states(3, 50)
    keys, values = packed.update(key[None], value[None], 0)
    assert keys.shape == (1, HEADS, 6, KEY_DIM)
    sessions = packed.sessions(2 * keys, values[..., :1])
    assert [keys[0, :, 0].tolist() for keys, _ in sessions] == [[0, 2, 4, 100], [102, 104]]
    assert [values[0, :, 0].tolist() for _, values in sessions] == [[0, -1, -2, -50], [-51, -52]]
    with pytest.raises(NotPackable):
        packed.sessions(keys[:, :, 1:], values[:, :, 1:])


def test_keys_of_an_indexer_are_rows_like_others(two: Two) -> None:
    caches, views = two
    new = torch.tensor([[[7.0], [8.0], [9.0]]])
    before = torch.tensor([[[1.0], [2.0], [3.0]]])
    caches[0].place(placement(0))
    PackedCache(caches[:1], [AttentionView(0, 3, 0, None)]).update_indexer(before, 0)
    caches[0].advance(3)
    rows = PackedCache(caches, views).update_indexer(new, 0)
    assert rows.tolist() == [[[1], [2], [3], [7], [8], [9]]]
    for cache, count in zip(caches, (1, 2), strict=True):
        cache.advance(count)
    caches[0].place(placement(2, 3))  # the third row gives way to the fourth
    last = AttentionView(2, 1, 2, None)
    rows = PackedCache(caches[:1], [last]).update_indexer(new[:, 2:], 0)
    assert rows.tolist() == [[[1], [7], [9]]]
    assert caches[0].nbytes_per_token == (HEADS * (KEY_DIM + VALUE_DIM) + 1) * 4
