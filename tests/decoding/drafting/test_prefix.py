"""How far two sequences are the same."""

import pytest

from swarm.decoding.drafting.prefix import common_prefix


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        ([], [], 0),
        ([], [1], 0),
        ([1], [], 0),
        ([1, 2], [1, 2], 2),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], [1, 2], 2),
        ([1, 2, 3], [1, 4, 3], 1),
        ([1, 2], [2, 1], 0),
    ],
)
def test_it_is_the_tokens_before_the_first_that_differs(
    a: list[int], b: list[int], shared: int
) -> None:
    assert common_prefix(a, b) == common_prefix(a, tuple(b)) == shared
