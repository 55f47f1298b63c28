"""What was sent on is kept row by row, as the cache keeps its rows, within what was reserved."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.compute.history import BLOCK_TOKENS, History, HistoryBudget
from swarm.wire.token_tree import Placement

HIDDEN = 3


def rows(*numbers: int) -> torch.Tensor:
    """Rows that can be told apart."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, HIDDEN)


def placement(start: int, *keep: int) -> Placement:
    return Placement(start, keep, (), start, None)


def held(history: History) -> list[float]:
    return history.rows(slice(None))[:, -1].tolist() if history.length else []


def test_it_follows_the_cache_back_and_over_rows_that_move() -> None:
    history = History(100)
    history.add(rows(*range(6)))
    # 0 and 1 stay, 3 and 5 move up to them, 2 and 4 are forgotten
    history.place(placement(4, 3, 5))
    assert held(history) == [0, 1, 3, 5]
    history.add(rows(6))
    history.place(placement(1))
    history.add(rows(7, 8))
    assert held(history) == [0, 7, 8]
    assert history.rows(slice(1, 9))[:, 0].tolist() == [7, 8]


def test_a_fork_holds_the_rows_that_are_kept() -> None:
    history = History(100)
    history.add(rows(*range(6)))
    for where, numbers in ((placement(4, 3, 5), [0, 1, 3, 5]), (placement(3), [0, 1, 2])):
        fork = History(50)
        fork.fork(history, where)
        fork.add(rows(9))
        assert held(fork) == [*numbers, 9]
    assert held(history) == [*range(6)]


def test_it_grows_in_blocks_up_to_its_limit() -> None:
    limit = 5 * BLOCK_TOKENS + 7
    history = History(limit)
    assert history.nbytes == 0
    for row in range(limit):
        history.add(rows(row))
        room = history.nbytes // (HIDDEN * 4)
        assert room % BLOCK_TOKENS == 0 or room == limit
        assert history.length <= room <= min(limit, history.length * 9 // 8 + BLOCK_TOKENS)
    assert held(history) == list(range(limit))


def test_it_keeps_the_dtype_that_travels() -> None:
    history = History(8)
    history.add(rows(1, 2).bfloat16())
    assert history.rows(slice(0, 1)).dtype == torch.bfloat16
    assert history.nbytes == 8 * HIDDEN * 2


def test_what_an_inference_made_may_be_kept_and_moved() -> None:
    history = History(8)
    with torch.inference_mode():
        output = rows(1, 2, 3) * 1.0
    history.add(output)
    history.place(placement(1, 2))
    assert held(history) == [3]


def test_an_empty_one_has_no_rows() -> None:
    history = History(8)
    history.place(placement(0))
    assert history.length == 0
    with pytest.raises(IndexError):
        history.rows(slice(0, 1))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.floats(0, 1), st.sets(st.integers(0, 40), max_size=9)),
        max_size=9,
    )
)
def test_it_behaves_as_a_list(steps: list[tuple[int, float, set[int]]]) -> None:
    history, model = History(10_000), []
    for base, (count, share, further) in enumerate(steps):
        kept = int(share * len(model))
        keep = sorted(kept + 1 + more for more in further if kept + 1 + more < len(model))
        history.place(placement(kept + len(keep), *keep))
        model = model[:kept] + [model[row] for row in keep]
        assert held(history) == model
        new = [1000 * base + index for index in range(count)]
        history.add(rows(*new))
        model += new
        assert (held(history), history.length) == (model, len(model))


def test_a_budget_is_reserved_whole_and_given_back() -> None:
    budget = HistoryBudget(100)
    first, second = budget.open(10, 4), budget.open(15, 4)
    assert first is not None
    assert second is not None
    assert (first.limit, second.limit, budget.free_bytes) == (10, 15, 0)
    assert budget.open(1, 1) is None
    budget.close(first)
    assert budget.free_bytes == 40
    assert budget.open(11, 4) is None
    assert budget.free_bytes == 40, "what does not fit takes nothing"
    budget.close(second)
    budget.close(None)
    assert budget.free_bytes == budget.total_bytes == 100
    with pytest.raises(KeyError):
        budget.close(second)
