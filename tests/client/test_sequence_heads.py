"""A text beside a head: one that drafts and is left, and the LM head that its client holds."""

from types import SimpleNamespace

from helpers.sequence_bench import PROMPT, models, options
from swarm.client.sequence import TextSequence
from swarm.decoding.drafting.drafter import Drafted, Drafter, Source
from swarm.decoding.drafting.earlier import EarlierTexts


def test_a_text_that_leaves_its_head_goes_on_with_the_same_copies():
    class Head(Drafter):
        pass

    earlier = EarlierTexts()
    earlier.add([*PROMPT, 9, 10])
    head = SimpleNamespace(source=Source.FEATURES, drafter=lambda *_: Head())
    turn = TextSequence(models(draft=head), PROMPT, options(), earlier=earlier)
    turn.leave_head("it is not for this model")
    assert list(turn.drafters) == [Source.COPY]
    assert [guess.token for guess in turn.drafters[Source.COPY].draft(PROMPT, 2)] == [9, 10]
    assert turn.draft_error == "it is not for this model"


def test_a_head_that_is_left_while_it_drafts_may_answer():
    class Head(Drafter):
        def draft(self, sequence, count):
            return [Drafted(9, source=Source.FEATURES)]

    head = SimpleNamespace(source=Source.FEATURES, drafter=lambda *_: Head())
    turn = TextSequence(models(draft=head), PROMPT, options(lookup=False))
    ask = turn.ask()
    answer = turn.draft(ask)
    turn.leave_head("it is not for this model")
    assert turn.next_window() is None  # it waits for the answer
    turn.propose(ask, answer)
    assert turn.next_window() is not None
    assert turn.ask() is None


def test_how_to_choose_is_only_told_to_a_head_that_chooses_by_bounds():
    for head, by_bounds in (
        (None, False),
        (SimpleNamespace(rounded=None), False),
        (SimpleNamespace(rounded=object()), True),
    ):
        with_head = models()
        with_head.head = head
        turn = TextSequence(with_head, PROMPT, options())
        choosing = turn.choosing([turn.decoder.tree.tip])
        assert (choosing is not None) == by_bounds
        if choosing is not None:
            assert choosing.text == tuple(PROMPT)
