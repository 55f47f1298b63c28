"""The drafters that fit a request and the client's models."""

from helpers.sequence_bench import models, options
from swarm.client.drafters import kind_of, make_drafters
from swarm.decoding.drafting.drafter import Source


class Draft:
    source = Source.MODEL

    def drafter(self, *_):
        return "the model's"


def test_lookup_is_asked_before_the_draft_model():
    both = make_drafters(models(draft=Draft()), options(lookup=True))
    assert list(both) == [Source.COPY, Source.MODEL]
    assert both[Source.MODEL] == "the model's"
    assert make_drafters(models(draft=Draft()), options()) == {Source.MODEL: "the model's"}
    assert make_drafters(models(draft=Draft()), options(window=0, lookup=True)) == {}
    assert make_drafters(models(), options(lookup=False)) == {}


def test_without_a_draft_model_what_was_said_before_is_looked_up_but_takes_more_to_be_believed():
    unasked = make_drafters(models(), options())[Source.COPY]
    asked = make_drafters(models(), options(lookup=True))[Source.COPY]
    assert (unasked.min_match, asked.min_match) == (3, 2)
    assert make_drafters(models(), options(window=0)) == {}


def test_what_the_sources_are_called():
    assert kind_of([]) is None
    assert kind_of([Source.COPY]) == "lookup"
    assert kind_of([Source.MODEL]) == "model"
    assert kind_of([Source.COPY, Source.MODEL]) == "lookup and model"
    assert kind_of([Source.FEATURES]) == "head"
    assert kind_of([Source.COPY, Source.FEATURES]) == "lookup and head"
