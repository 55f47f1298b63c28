"""What may follow the text, and how likely the text gets there."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.decoding.confidence import LEAST, MOST, Confidence
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Drafted, Source


class Sure(Confidence):
    """Believes the draft."""

    def chance(self, guess):
        return min(max(guess.confidence, LEAST), MOST)


def guess(token, sure, *others):
    return Drafted(token, None, sure, others)


def copy(token, sure, *others):
    return Drafted(token, None, sure, others, Source.COPY, matched=4)


def grow(tree, node, *drafted, branches=2, **more):
    source = drafted[0].source if drafted else Source.MODEL
    return tree.grow(node, drafted, Sure(), source=source, branches=branches, **more)


@pytest.fixture
def tree():
    """Behind 1 the draft says 2, or perhaps 5; behind 2 it says 3; behind 5 it says 6."""
    tree = DraftTree(DraftNode(1, position=7))
    grow(tree, tree.tip, guess(2, 0.8, (5, 0.1)), guess(3, 0.5))
    grow(tree, tree.tip.children[1], guess(6, 0.9))
    return tree


def tokens(nodes):
    return [node.token for node in nodes]


def main_line(node):
    return [node.token for node, _ in node.line()]


def chances(tree, nodes):
    return [math.exp(node.log_chance - tree.tip.log_chance) for node in nodes]


def test_a_line_and_its_branches(tree):
    assert main_line(tree.tip) == [1, 2, 3]
    assert tokens(tree.nodes) == [2, 5, 3, 6]
    assert [node.position for node in tree.nodes] == [8, 8, 9, 9]
    assert [each.token for _, each in tree.tip.line() if each] == [2, 3]
    assert [tree.path(node) for node in tree.nodes] == [[2], [5], [2, 3], [5, 6]]


def test_only_as_many_choices_as_there_may_be_branches():
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, guess(2, 0.5, (3, 0.3), (4, 0.1)))
    assert tokens(tree.nodes) == [2, 3]


def test_what_may_be_continued_and_what_may_be_sent(tree):
    two, five, three, six = tree.nodes
    assert tree.unexplored(Source.MODEL, 0.0) == [three, six]
    assert (tree.unsent, tree.sent) == ([two, five, three, six], 0)
    tree.send([two, three], first=4)
    assert (two.serial, three.serial, tree.unsent, tree.sent) == (4, 5, [five, six], 2)
    grow(tree, six)
    assert tree.unexplored(Source.MODEL, 0.0) == [three], "it is not asked again what follows 6"
    tree.advance(2)
    assert (tree.unexplored(Source.MODEL, 0.0), tree.unsent, tree.sent) == ([three], [], 1)
    tip = tree.advance(9)
    assert (tree.unexplored(Source.MODEL, 0.0), tree.unsent, tree.sent) == ([tip], [], 0)


def test_the_chance_of_a_place_is_that_of_all_on_the_way(tree):
    assert chances(tree, tree.nodes) == pytest.approx([0.8, 0.1, 0.4, 0.09])
    assert tokens(tree.likely([tree.tip, *tree.nodes], 0.3)) == [1, 2, 3]
    assert tokens(tree.likely([tree.tip, *tree.nodes], 0.0)) == [1, 2, 5, 3, 6]


def test_the_first_choice_is_committed_and_the_others_die(tree):
    two, five, three, six = tree.nodes
    old = tree.tip
    assert tree.advance(2) is two
    assert (tree.nodes, two.parent) == ([three], None)
    assert (old.alive, two.alive, three.alive, five.alive, six.alive) == (
        False,
        True,
        True,
        False,
        False,
    )
    assert math.exp(three.log_chance - two.log_chance) == pytest.approx(0.5)


def test_another_choice_is_committed_with_all_that_follows_it(tree):
    two, five, three, six = tree.nodes
    assert tree.advance(5) is five
    assert tree.nodes == [six]
    assert not two.alive
    assert not three.alive


def test_a_token_that_was_not_drafted_leaves_nothing_alive(tree):
    before = list(tree.nodes)
    tip = tree.advance(9)
    assert (tip.token, tip.position, tip.serial, tip.parent) == (9, 8, 0, None)
    assert tree.nodes == []
    assert not any(node.alive for node in before)


# Several sources.


def test_sources_share_what_they_agree_on_and_part_behind_it():
    tree = DraftTree(DraftNode(1, 0))
    assert grow(tree, tree.tip, copy(2, 0.9), copy(3, 0.9), copy(4, 0.9)) == 3
    assert grow(tree, tree.tip, guess(2, 0.6), guess(5, 0.08)) == 0, "no place without a guess"
    two, three, _, five = tree.nodes
    assert tokens(tree.nodes) == [2, 3, 4, 5]
    assert (five.parent, len(two.votes), len(three.votes)) == (two, 2, 1)
    assert chances(tree, tree.nodes) == pytest.approx([0.9, 0.81, 0.729, 0.9 * 0.08])
    assert main_line(tree.tip) == [1, 2, 3, 4]


def test_where_sources_disagree_the_likelier_token_comes_first_and_leaves_the_other_the_rest():
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, copy(2, 0.5), copy(3, 0.9))
    grow(tree, tree.tip, guess(7, 0.95))
    assert chances(tree, tree.nodes) == pytest.approx([0.05, 0.045, 0.95]), "3 follows 2"
    assert main_line(tree.tip) == [1, 7]
    assert tree.tip.proposal().source is Source.MODEL


def test_a_source_is_asked_where_the_text_may_leave_what_others_guessed():
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, copy(2, 0.98), copy(3, 0.5), copy(4, 0.9))
    two, three, four = tree.nodes
    # To leave: 0.02, 0.98 * 0.5, 0.49 * 0.1, and behind the end 0.441.
    assert tree.unexplored(Source.MODEL, 0.0) == [two, four, three, tree.tip]
    assert tree.unexplored(Source.MODEL, 0.04) == [two, four, three]
    assert tree.unexplored(Source.COPY, 0.04) == [four]


def test_a_chain_that_takes_one_token_for_a_place_gets_one():
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, copy(2, 0.9), copy(3, 0.9), branches=1)
    grow(tree, tree.tip, guess(2, 0.9), guess(8, 0.9), branches=1)
    assert (tokens(tree.nodes), main_line(tree.tip)) == ([2, 3], [1, 2, 3])


def test_a_line_ends_where_the_text_hardly_gets():
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, *(copy(token, 0.5) for token in range(2, 9)), least_chance=0.2)
    assert tokens(tree.nodes) == [2, 3, 4]
    assert tree.unexplored(Source.COPY, 0.0) == [tree.nodes[-1]], "it may become likelier"


def test_a_guess_is_noted_with_its_lag_rank_and_sureness():
    tree = DraftTree(DraftNode(1, 0))
    assert tree.lag(tree.tip) == 1
    grow(tree, tree.tip, copy(2, 0.5, (9, 0.25)), copy(3, 0.9), lag=1)
    two, _, three = tree.nodes
    assert [tuple(node.votes[0].guess) for node in tree.nodes] == [
        (Source.COPY, 0, 0.5, 4, 1),
        (Source.COPY, 1, 0.25, 4, 1),
        (Source.COPY, 0, 0.9, 4, 2),
    ]
    assert tree.lag(three) == 3
    two.choice = 3
    assert (tree.lag(two), tree.lag(three)) == (0, 1)


def drawn(token, sure, source=Source.MODEL):
    return Drafted(token, torch.zeros(16), sure, (), source)


def test_the_rule_judges_the_likeliest_guess_with_the_distribution_it_came_from():
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, copy(2, 0.9))
    grow(tree, tree.tip, model := drawn(2, 0.3))
    assert tree.tip.proposal() is model, "both guess 2: that of the model has a distribution"
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, copied := copy(2, 0.9))
    grow(tree, tree.tip, drawn(3, 0.3))
    assert tree.tip.proposal() is copied


@pytest.mark.parametrize("sure", [0.1, 0.9])
def test_a_drawn_guess_is_judged_however_likely_it_is(sure):
    """Else its distribution would not be the one that it is judged by."""
    tree = DraftTree(DraftNode(1, 0))
    grow(tree, tree.tip, copy(2, 0.5))
    grow(tree, tree.tip, model := drawn(3, sure))
    assert tree.tip.proposal(drawn=True) is model
    grow(tree, tree.tip, head := drawn(4, 0.2, Source.FEATURES))
    assert tree.tip.proposal(drawn=True) is head, "the first source that draws"


sureness = st.floats(0, 1)
lines = st.lists(
    st.tuples(st.integers(0, 3), sureness, st.lists(st.tuples(st.integers(0, 3), sureness))),
    max_size=5,
)
steps = st.lists(
    st.tuples(
        st.sampled_from(Source),
        st.integers(0, 30),
        lines,
        st.integers(1, 3),
        st.sampled_from([0.0, 0.1]),
    ),
    max_size=12,
)


def line_of(source, drawn):
    """A source's line; its other choices are other tokens."""
    for token, sure, others in drawn:
        unlike = {other: chance for other, chance in others if other != token}
        yield Drafted(token, None, sure, tuple(unlike.items()), source)


@given(steps, st.lists(st.integers(0, 3), max_size=3))
def test_whatever_sources_guess_the_tree_is_one(steps, committed):
    tree = DraftTree(DraftNode(1, 0))
    places = 0
    for source, at, line, branches, least in steps:
        if not (open_nodes := tree.unexplored(source, 0.0)):
            continue
        places += tree.grow(
            open_nodes[at % len(open_nodes)],
            list(line_of(source, line)),
            Sure(),
            source=source,
            branches=branches,
            least_chance=least,
        )
    assert places == sum(bool(node.proposals) for node in (tree.tip, *tree.nodes))
    for token in (None, *committed):
        if token is not None:
            tree.advance(token)
        check(tree)


def check(tree):
    known = {tree.tip}
    for node in tree.nodes:
        assert node.parent in known, "parents come first"
        assert node in node.parent.children
        known.add(node)
    assert tree.unsent == tree.nodes
    for place in known:
        below = place.children
        assert set(below) <= known
        assert len({child.token for child in below}) == len(below), "no token twice"
        assert sum(child.chance for child in below) <= 1 + LEAST * len(below)
        assert all(child.log_chance < place.log_chance for child in below)
        assert bool(below) == bool(place.proposals) == (place.main is not None)
        for child in below:
            assert child.votes
            assert len({vote.guess.source for vote in child.votes}) == len(child.votes)
        assert set(place.proposals) <= place.asked
