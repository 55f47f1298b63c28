"""The drafters that fit a request and the client's models."""

from helpers.sequence_bench import models, options
from swarm.client.drafters import kind_of, make_drafters
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.earlier import EarlierTexts


class Draft:
    source = Source.MODEL

    def drafter(self, *_):
        return "the model's"


def test_copies_are_drafted_before_the_draft_model_unless_they_are_switched_off():
    for lookup in (None, True):
        both = make_drafters(models(draft=Draft()), options(lookup=lookup))
        assert list(both) == [Source.COPY, Source.MODEL]
        assert both[Source.MODEL] == "the model's"
        assert list(make_drafters(models(), options(lookup=lookup))) == [Source.COPY]
    assert list(make_drafters(models(draft=Draft()), options(lookup=False))) == [Source.MODEL]
    assert make_drafters(models(), options(lookup=False)) == {}


def test_earlier_texts_are_copied_too():
    earlier = EarlierTexts()
    earlier.add([7, 8, 9])
    copies = make_drafters(models(), options(), earlier)[Source.COPY]
    assert [guess.token for guess in copies.draft([6, 7], 2)] == [8, 9]


def test_plain_decoding_has_no_drafter():
    assert make_drafters(models(draft=Draft()), options(window=0, lookup=True)) == {}


def test_what_the_sources_are_called():
    assert kind_of([]) is None
    assert kind_of([Source.COPY]) == "lookup"
    assert kind_of([Source.MODEL]) == "model"
    assert kind_of([Source.COPY, Source.MODEL]) == "lookup and model"
    assert kind_of([Source.FEATURES]) == "head"
    assert kind_of([Source.COPY, Source.FEATURES]) == "lookup and head"
