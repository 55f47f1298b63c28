"""Masks: the model's rule, along rows and along the paths of a tree."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    chunked_overlay,
    sliding_window_overlay,
)

from swarm.model.attention import keep_rule
from swarm.model.masks import AttentionView, Lines, MaskRule, NotPackable, matrix
from swarm.wire.token_tree import Placement

NO_PADDING = torch.zeros(1, dtype=torch.long)
RULES = {
    "causal": causal_mask_function,
    "sliding": and_masks(sliding_window_overlay(3), causal_mask_function),
    "chunked": and_masks(chunked_overlay(3, NO_PADDING), causal_mask_function),
}


def keys(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty((1, rows, 0), dtype=dtype)


def allowed(name: str, view: AttentionView, repeat: int = 1) -> list[list[bool]]:
    mask = MaskRule(RULES[name], [view]).draw(view, repeat, keys(view.start + view.count))
    if mask is None:
        return [[True] * (view.start + view.count)] * view.count
    assert set(mask.flatten().tolist()) <= {0.0, float("-inf")}
    return (mask == 0).tolist()


def by_hand(name: str, view: AttentionView) -> list[list[bool]]:
    """Token by token: the rows that lead to it, their positions on that path, and the rule."""
    rows = []
    for token in range(view.count):
        if view.seen is None:
            seen = list(range(view.start + token + 1))
        else:
            seen = [
                *range(view.trunk),
                *(view.trunk + i for i, sees in enumerate(view.seen[token].tolist()) if sees),
            ]
        positions = torch.arange(len(seen))
        says = RULES[name](0, 0, positions[-1], positions).tolist()
        rows.append(
            [row in seen and says[seen.index(row)] for row in range(view.start + view.count)]
        )
    return rows


@st.composite
def trees(draw: st.DrawFn) -> Placement:
    """A tree of some held and some new tokens behind a trunk."""
    trunk, held, count = draw(st.integers(0, 7)), draw(st.integers(0, 6)), draw(st.integers(1, 6))
    sees: list[int] = []
    for i in range(held + count):
        parent = draw(st.integers(-1, i - 1))
        sees.append((0 if parent < 0 else sees[parent]) | 1 << i)
    positions = tuple(trunk + each.bit_count() - 1 for each in sees[held:])
    return Placement(trunk + held, (), positions, trunk, tuple(sees[held:]))


@pytest.mark.parametrize("name", RULES)
def test_a_tree_is_seen_along_its_paths(name: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(trees())
    def check(placement: Placement) -> None:
        view = AttentionView.of(placement, len(placement.positions), torch.device("cpu"))
        assert allowed(name, view) == by_hand(name, view)

    check()


@settings(max_examples=100, deadline=None)
@given(trees())
def test_a_tree_parts_into_lines_each_with_the_rows_of_its_text(placement: Placement) -> None:
    assert placement.sees is not None
    trunk, count = placement.trunk, len(placement.sees)
    lines = Lines.of(placement, torch.device("cpu"))
    cached = torch.arange(placement.start + count)[None, :, None]
    found = [token for line in lines.each for token in line.tokens.tolist()]
    assert [found[at] for at in lines.order.tolist()] == list(range(count))
    for line in lines.each:
        rows = line.of(cached)[0, :, 0].tolist()[: line.view.start + line.view.count]
        for end, token in enumerate(line.tokens.tolist(), line.view.start + 1):
            sees = placement.sees[token]
            behind = [trunk + i for i in range(sees.bit_length()) if sees >> i & 1]
            assert rows[:end] == [*range(trunk), *behind]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 5), (6, 1), (6, 4)])
def test_a_line_is_seen_along_its_rows(name: str, start: int, count: int) -> None:
    view = AttentionView(start, count, start, None)
    assert allowed(name, view) == by_hand(name, view)


def test_one_token_that_sees_everything_needs_no_mask() -> None:
    like = keys(10)
    line, branch = AttentionView(9, 1, 9, None), AttentionView(9, 1, 8, matrix([0b10], 2))
    assert MaskRule(causal_mask_function, [line]).draw(line, 2, like) is None
    assert MaskRule(RULES["sliding"], [line]).draw(line, 2, like) is not None
    assert MaskRule(causal_mask_function, [branch]).draw(branch, 2, like) is not None


def test_rows_behind_the_last_token_are_seen_by_none() -> None:
    for view in (AttentionView(2, 1, 2, None), AttentionView(1, 2, 1, matrix([0b01, 0b11], 2))):
        mask = MaskRule(causal_mask_function, [view]).draw(view, 2, keys(8))
        assert mask is not None
        assert mask.shape == (2 * view.count, 8)
        assert mask[:, 3:].eq(float("-inf")).all()
        assert mask[-1, :3].eq(0).all()
        chosen = torch.ones((view.count, 3), dtype=torch.bool)
        again = MaskRule(causal_mask_function, [view]).draw(view, 2, keys(8), chosen)
        assert again is not None
        assert torch.equal(again, mask)


def test_a_mask_is_drawn_once_for_each_session_and_repeated_for_the_heads_of_a_group() -> None:
    like = keys(5, torch.bfloat16)
    views = [AttentionView(2, 3, 2, None), AttentionView(2, 3, 2, None)]
    rule = MaskRule(causal_mask_function, views)
    mask = rule.draw(views[0], 2, like)
    assert mask is not None
    assert mask.dtype == torch.bfloat16
    assert torch.equal(mask[:3], mask[3:])
    assert rule.draw(views[0], 2, like) is mask
    assert rule.draw(views[1], 2, like) is not mask


def test_rows_that_a_token_does_not_choose_are_masked_beside_those_that_it_may_not_see() -> None:
    view, like = AttentionView(2, 2, 2, None), keys(4)
    chosen = torch.tensor([[True, False, True, True], [False, True, True, True]])
    mask = MaskRule(causal_mask_function, [view]).draw(view, 2, like, chosen)
    assert mask is not None
    seen = [[True, False, True, False], [False, True, True, True]]
    assert (mask == 0).tolist() == 2 * seen
    view = AttentionView(3, 1, 3, None)
    mask = MaskRule(causal_mask_function, [view]).draw(view, 2, like, chosen[1:])
    assert mask is not None
    assert (mask == 0).tolist() == 2 * seen[1:]


def test_a_layer_may_read_the_mask_of_all_sessions_in_which_none_sees_another() -> None:
    line, branch = AttentionView(1, 2, 1, None), AttentionView(2, 1, 1, matrix([0b10], 2))
    rule = MaskRule(causal_mask_function, [line, branch], torch.device("cpu"))
    assert rule[:, 0, :, :].tolist() == [
        [
            [True, True, False, False, False, False],
            [True, True, True, False, False, False],
            [False, False, False, True, False, True],
        ]
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 70) - 1), min_size=1, max_size=5), st.integers(70, 80))
def test_bits_become_a_matrix(numbers: list[int], columns: int) -> None:
    assert matrix(numbers, columns).tolist() == [
        [bool(n >> i & 1) for i in range(columns)] for n in numbers
    ]


@pytest.mark.parametrize("asked", [{"attention_mask": torch.ones(1)}, {"use_vmap": True}])
def test_a_rule_that_depends_on_more_than_positions_is_not_kept(asked: dict[str, object]) -> None:
    with pytest.raises(NotPackable):
        keep_rule(**asked)
