"""A book of answers gives each to the drafter once, and keeps those of the text's end."""

import gc
import weakref

import pytest
import torch

from swarm.decoding import feature_book as module
from swarm.decoding.draft_tree import DraftNode, DraftTree
from swarm.decoding.drafting.feature import TappedToken
from swarm.decoding.feature_book import FeatureBook
from swarm.decoding.token_stream import TokenStream
from swarm.decoding.windows import NOTHING_HELD, Window


def outputs(*values):
    return torch.tensor([[float(value)] for value in values])


def given(features):
    return [(each.position, each.path, int(each.output)) for each in features]


def tree(position=4):
    """A tip with a child, and one behind that."""
    found = DraftTree(DraftNode(9, position))
    node = found.tip
    for token in (5, 6):
        child = DraftNode(token, node.position + 1, node)
        node.children.append(child)
        found.nodes.append(child)
        node = child
    return found


def window(position, count, tail, features):
    return Window(0, 0, position + 1, tuple(range(count)), None, tail, position, features)


def test_an_answer_is_given_once_with_its_place():
    drafts = tree()
    book = FeatureBook(8)
    first, second = drafts.nodes
    book.answered([drafts.tip, second], outputs(1, 2))
    assert given(book.take(drafts)) == [(4, (), 1), (6, (5, 6), 2)]
    assert book.take(drafts) == ()
    book.answered([first], outputs(3))
    assert given(book.take(drafts)) == [(5, (5,), 3)]


def test_what_the_drafter_may_not_have_got_is_given_again():
    drafts = tree()
    book = FeatureBook(8)
    book.answered([drafts.tip], outputs(1))
    book.take(drafts)
    book.give_back()
    assert given(book.take(drafts)) == [(4, (), 1)]
    assert book.take(drafts) == ()


def test_answers_where_the_text_did_not_go_are_dropped():
    drafts = tree()
    book = FeatureBook(8)
    first, _ = drafts.nodes
    book.answered([drafts.tip, first], outputs(1, 2))
    drafts.advance(7)
    assert given(book.take(drafts)) == [(4, (), 1)]
    assert given(book.held(6)) == []
    assert given(book.held(5)) == [(4, (), 1)]


def test_a_prompt_s_answers_lie_before_those_of_the_nodes():
    book = FeatureBook(8)
    windows = [window(0, 4, 3, 3), window(4, 3, 4 - 1, 1)]
    book.prompt(windows, outputs(1, 2, 3, 4, 5, 6))
    assert given(book.take(tree())) == [(1, (), 1), (2, (), 2), (3, (), 3), (4, (), 4)]


def test_what_is_kept_is_bounded_and_without_a_gap():
    book = FeatureBook(3)
    book.prompt([window(0, 8, 8, 8)], outputs(*range(8)))
    assert given(book.held(8)) == [(5, (), 5), (6, (), 6), (7, (), 7)]
    assert given(book.held(9)) == []
    further = FeatureBook(3, book.held(8))
    assert [position for position, _, _ in given(further.take(tree(12)))] == [5, 6, 7]


def test_a_drafter_that_is_not_asked_costs_bounded_memory(monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 4)
    book = FeatureBook(2)
    book.prompt([window(0, 8, 8, 8)], outputs(*range(8)))
    assert [position for position, _, _ in given(book.take(tree(9)))] == [4, 5, 6, 7]


def test_large_answers_are_fewer(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 4 * 4 * 3)
    book = FeatureBook(8, width=4)
    assert book.answered_from(10) == 7
    book.prompt([window(0, 8, 8, 8)], torch.ones(8, 4))
    assert [each.position for each in book.take(tree(9))] == [5, 6, 7]


@pytest.mark.parametrize(("goes_on", "kept"), [(True, [7, 8, 9]), (False, [9])])
def test_what_the_drafter_has_is_forgotten_but_for_where_another_text_goes_on(goes_on, kept):
    book = FeatureBook(3, goes_on=goes_on)
    drafts = tree(8)
    book.prompt([window(0, 8, 8, 8)], outputs(*range(8)))
    assert len(book.take(drafts)) == 8
    book.answered([drafts.tip], outputs(8))
    book.take(drafts)
    drafts.advance(5)
    book.answered([drafts.tip], outputs(9))
    assert given(book.take(drafts)) == [(9, (), 9)]
    assert [each.position for each in book._answers] == kept


def test_the_end_of_a_prompt_is_answered_with_the_chunks_that_it_lies_in():
    prompt = list(range(10))
    stream = TokenStream(prompt[:-1], NOTHING_HELD, answered_from=3)
    drafts = DraftTree(DraftNode(prompt[-1], 9))
    sent = [stream.send(drafts, (), 4), stream.send(drafts, (), 4)]
    sent.append(stream.send(drafts, [drafts.tip], 1))
    assert [(each.tail, each.features) for each in sent] == [(1, 1), (4, 4), (2, 1)]
    assert stream.answered(sent) == [(6, drafts.tip)]
    assert stream.asking == 0
    book = FeatureBook(6)
    book.prompt(sent, outputs(*range(3, 10)))
    assert given(book.take(drafts)) == [(at, (), at) for at in range(3, 9)]


def test_the_first_token_of_all_is_not_worth_an_answer():
    assert FeatureBook(512).answered_from(10) == 1
    assert FeatureBook(4).answered_from(10) == 6


def tapped(*tokens):
    """What two layers gave at some tokens, by serial; the first value is given back."""
    return [TappedToken(serial, torch.tensor([[value], [0.0]])) for serial, value in tokens]


def given_of_two(features):
    return [(each.position, each.path, int(each.output[0])) for each in features]


def test_outputs_of_layers_go_to_the_places_of_their_serials_whenever_they_come():
    drafts = tree()
    first, second = drafts.nodes
    for serial, node in enumerate((drafts.tip, first, second), 5):
        node.serial = serial
    book = FeatureBook(8, taps=(0, 3))
    # a prompt of four tokens, of which three are answered, then its last one and two drafts
    book.sent(window(0, 4, 3, 3), [])
    book.sent(window(4, 3, 3, 0), [drafts.tip, first, second])
    book.answered([drafts.tip], outputs(99))  # is not read
    book.tapped(tapped((2, 1), (5, 4), (1, 98), (77, 97)))
    assert given_of_two(book.take(drafts)) == [(1, (), 1), (4, (), 4)]
    book.tapped(tapped((7, 6)))  # before its token is answered
    assert given_of_two(book.take(drafts)) == [(6, (5, 6), 6)]
    drafts.advance(5)
    drafts.advance(6)
    book.tapped(tapped((3, 2), (6, 5), (2, 96)))  # late, and one of them twice
    assert given_of_two(book.take(drafts)) == [(2, (), 2), (5, (), 5)]
    assert given_of_two(book.held(7)) == [(4, (), 4), (5, (), 5), (6, (), 6)]


def test_places_that_are_never_told_of_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 4)
    book = FeatureBook(2, taps=(0, 3))
    book.sent(window(0, 9, 9, 9), [])
    book.tapped(tapped((5, 1), (6, 2)))
    assert given_of_two(book.take(tree(9))) == [(5, (), 2)]


def test_the_last_layer_alone_gives_what_answers_would_be():
    drafts = tree()
    drafts.tip.serial = 5
    book = FeatureBook(8, taps=(3,), alone=True)
    book.sent(window(4, 1, 1, 0), [drafts.tip])
    book.tapped([TappedToken(5, torch.tensor([[7.0]]))])
    assert given(book.take(drafts)) == [(4, (), 7)]


def test_nodes_of_the_text_are_let_go_with_their_predictions():
    drafts = tree()
    book = FeatureBook(8)
    first = drafts.nodes[0]
    prediction = weakref.ref(first)
    book.answered([drafts.tip, first], outputs(1, 2))
    book.take(drafts)
    drafts.advance(first.token)
    book.take(drafts)
    drafts.advance(6)
    del first
    gc.collect()
    assert prediction() is None
    assert given(book.held(6)) == [(4, (), 1), (5, (), 2)]


def test_a_book_that_no_drafter_reads_any_more_holds_nothing():
    drafts = tree()
    book = FeatureBook(8)
    book.answered([drafts.tip], outputs(1))
    book.close()
    book.answered([drafts.tip], outputs(1))
    book.prompt([window(0, 3, 3, 2)], outputs(1, 2, 3))
    assert book.take(drafts) == ()
    assert book.held(4) == ()
