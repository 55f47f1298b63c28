from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarm.network.dht.keys import (
    BLOCKS,
    MAX_DEPTH,
    Shard,
    block_count,
    block_of,
    models_key,
    rank_of,
    span_key,
    way_of,
)

paths = st.text("01", max_size=MAX_DEPTH)


@given(st.integers(1, 1000))
def test_blocks_divide_a_model_evenly_and_in_order(layers: int) -> None:
    blocks = [block_of(layer, layers) for layer in range(layers)]
    assert (blocks[0], blocks[-1]) == (0, block_count(layers) - 1)
    assert all(0 <= after - before <= 1 for before, after in pairwise(blocks))
    sizes = Counter(blocks).values()
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) <= BLOCKS


@given(st.integers(0, 15), paths.filter(len))
def test_a_shard_knows_its_relatives(tree: int, path: str) -> None:
    shard = Shard(tree, path)
    assert shard in shard.parent.children
    assert set(shard.parent.children) == {shard, shard.sibling}
    assert shard.sibling.sibling == shard
    assert all(child.depth == shard.depth + 1 <= MAX_DEPTH for child in shard.children)


@given(st.tuples(st.integers(0, 3), paths), st.tuples(st.integers(0, 3), paths))
def test_different_shards_have_different_keys(one: tuple[int, str], other: tuple[int, str]) -> None:
    same = span_key("test", "0" * 32, Shard(*one)) == span_key("test", "0" * 32, Shard(*other))
    assert same == (one == other)
    assert models_key("test", one[1]) != span_key("test", "0" * 32, Shard(*other))


def test_ways_and_ranks_spread_evenly_and_independently() -> None:
    names = [f"peer {i}" for i in range(4000)]
    assert all(len(way_of(name)) == MAX_DEPTH and set(way_of(name)) <= {"0", "1"} for name in names)
    for depth in (1, 3):
        shares = Counter(way_of(name)[:depth] for name in names)
        assert all(abs(count - 4000 / 2**depth) < 200 for count in shares.values())
    first = sorted(names, key=rank_of)[:2000]
    assert abs(sum(way_of(name)[0] == "0" for name in first) - 1000) < 150
    assert way_of("peer 1") == way_of("peer 1")
