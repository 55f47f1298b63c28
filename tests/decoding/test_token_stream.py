"""Every token that is sent has a serial of its own, and says which one it follows."""

from swarm.decoding.confidence import Confidence
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.token_stream import TokenStream
from swarm.decoding.windows import NOTHING_HELD, ResumePoint

PROMPT = (1, 2, 3)


def new_tree(*drafted: Drafted) -> DraftTree:
    tree = DraftTree(DraftNode(PROMPT[-1], len(PROMPT) - 1))
    tree.grow(tree.tip, drafted, Confidence(), branches=2)
    return tree


def test_the_prompt_goes_before_the_tip_and_the_drafts():
    tree = new_tree(Drafted(4), Drafted(5))
    stream = TokenStream(PROMPT[:-1], NOTHING_HELD)
    window = stream.send(tree, [tree.tip, *tree.nodes], 2)
    assert (window.root, window.first, window.position) == (0, 1, 0)
    assert (window.tokens, window.parents, window.tail) == ((1, 2, 3, 4, 5), None, 3)
    assert [node.serial for node in (tree.tip, *tree.nodes)] == [3, 4, 5]
    assert not stream.unread


def test_a_second_choice_names_the_token_that_it_follows():
    tree = new_tree(Drafted(4, None, 0.6, ((5, 0.3),)))
    stream = TokenStream((), ResumePoint(epoch=2, root=7, last=9, tokens=PROMPT[:-1]))
    window = stream.send(tree, [tree.tip, *tree.nodes], 0)
    assert (window.epoch, window.root, window.first, window.position) == (2, 7, 10, 2)
    assert window.parents == (3, 1, 2)


def test_a_chunk_of_the_prompt_asks_for_no_answer():
    tree = new_tree()
    stream = TokenStream(PROMPT[:-1], NOTHING_HELD)
    assert stream.send(tree, (), 2).tail == 0
    assert (stream.in_flight, stream.asking, stream.root) == (1, 0, 2)
    stream.send(tree, [tree.tip], 0)
    assert (stream.in_flight, stream.asking, stream.root) == (2, 1, 2)


def test_windows_count_from_the_last_one_that_began_with_the_tip():
    tree = new_tree(Drafted(4), Drafted(5))
    stream = TokenStream((), NOTHING_HELD)
    counts = []
    for node in (tree.tip, *tree.nodes):
        stream.send(tree, [node], 0)
        counts.append(stream.windows_ahead)
    assert counts == [0, 1, 2]


def test_rows_of_windows_that_are_void_or_of_nodes_that_are_dead_are_left_out():
    tree = new_tree(Drafted(4), Drafted(5))
    stream = TokenStream((), NOTHING_HELD)
    window = stream.send(tree, [tree.tip, *tree.nodes], 0)
    tree.advance(4)
    assert stream.answered([window]) == [(1, tree.tip), (2, tree.nodes[0])]
    again = stream.send(tree, tree.nodes, 0)
    stream.flush()
    assert (stream.answered([again]), stream.epoch, stream.in_flight) == ([], 1, 0)


def test_a_newer_epoch_goes_on_from_what_was_answered_or_begins_again():
    tree = new_tree()
    stream = TokenStream((), NOTHING_HELD)
    stream.send(tree, [tree.tip], 0)
    stream.root = 1
    assert stream.held(PROMPT) == ResumePoint(1, 1, 1, PROMPT)
    assert stream.resume(PROMPT) == ResumePoint(1, 1, 1, PROMPT)
    assert stream.restart(PROMPT) == ResumePoint(2, 0, 1, ())
    assert (stream.unread, stream.root, stream.in_flight) == ([*PROMPT], 0, 0)
