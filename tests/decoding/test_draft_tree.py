"""What may follow the text, and how likely the text gets there."""

import math

import pytest

from swarm.decoding.confidence import Confidence
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Drafted


class Sure(Confidence):
    """Believes the draft."""

    def chance(self, rank, sure):
        return sure


def guess(token, sure, *others):
    return Drafted(token, None, sure, others)


@pytest.fixture
def tree():
    """Behind 1 the draft says 2, or perhaps 5; behind 2 it says 3; behind 5 it says 6."""
    tree = DraftTree(DraftNode(1, position=7))
    tree.grow(tree.tip, [guess(2, 0.8, (5, 0.1)), guess(3, 0.5)], branches=2, confidence=Sure())
    tree.grow(tree.tip.children[1], [guess(6, 0.9)], branches=2, confidence=Sure())
    return tree


def tokens(nodes):
    return [node.token for node in nodes]


def test_a_line_and_its_branches(tree):
    assert tokens(tree.tip.line()) == [1, 2, 3]
    assert tokens(tree.nodes) == [2, 5, 3, 6]
    assert [node.position for node in tree.nodes] == [8, 8, 9, 9]
    assert [node.drafted is not None for node in tree.nodes] == [True, False, True, True]
    assert [tree.path(node) for node in tree.nodes] == [[2], [5], [2, 3], [5, 6]]


def test_only_as_many_choices_as_there_may_be_branches():
    tree = DraftTree(DraftNode(1, 0))
    tree.grow(tree.tip, [guess(2, 0.5, (3, 0.3), (4, 0.1))], branches=2, confidence=Sure())
    assert tokens(tree.nodes) == [2, 3]


def test_what_may_be_continued_and_what_may_be_sent(tree):
    two, five, three, six = tree.nodes
    assert tree.open == [three, six]
    assert (tree.unsent, tree.sent) == ([two, five, three, six], 0)
    tree.send([two, three], first=4)
    assert (two.serial, three.serial, tree.unsent, tree.sent) == (4, 5, [five, six], 2)
    tree.grow(six, [], branches=2, confidence=Sure())
    assert tree.open == [three], "nobody is asked again what follows 6"
    tree.advance(2)
    assert (tree.open, tree.unsent, tree.sent) == ([three], [], 1)
    tip = tree.advance(9)
    assert (tree.open, tree.unsent, tree.sent) == ([tip], [], 0)


def test_the_chance_of_a_place_is_that_of_all_on_the_way(tree):
    chances = [math.exp(node.log_chance - tree.tip.log_chance) for node in tree.nodes]
    assert chances == pytest.approx([0.8, 0.1, 0.4, 0.09])
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
