"""The drafter that fits a request and the client's models."""

from helpers.sequence_bench import models, options
from swarm.client.drafters import make_drafter


def test_lookup_goes_before_the_draft_model():
    class Draft:
        def drafter(self, *_):
            return "the model's"

    both = make_drafter(models(draft=Draft()), options(lookup=True))
    assert both.drafters[1] == "the model's"
    assert make_drafter(models(draft=Draft()), options()) == "the model's"
    assert make_drafter(models(draft=Draft()), options(window=0, lookup=True)) is None
    assert make_drafter(models(), options(lookup=False)) is None


def test_without_a_draft_model_what_was_said_before_is_looked_up_but_takes_more_to_be_believed():
    unasked = make_drafter(models(), options())
    asked = make_drafter(models(), options(lookup=True))
    assert (unasked.min_match, asked.min_match) == (3, 2)
    assert make_drafter(models(), options(window=0)) is None
