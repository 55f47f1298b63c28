"""The drafters that fit a request and the client's models."""

from helpers.sequence_bench import models, options
from swarm.client.drafters import correction_of, kind_of, make_drafters
from swarm.client.models import new_corrections
from swarm.decoding.calibration import ENOUGH
from swarm.decoding.drafting.correction import CorrectedShaping
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.earlier import EarlierTexts
from swarm.decoding.shaping import Shaping


class Draft:
    source = Source.MODEL

    def __init__(self):
        self.shapings = []

    def drafter(self, _, shaping, *__):
        self.shapings.append(shaping)
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


def test_a_draft_is_corrected_and_learns_unless_the_text_would_depend_on_it():
    held = models(draft=Draft(), corrections=new_corrections(10))
    correction = correction_of(held, options())
    assert correction is not None
    assert correction_of(held, options(owner="another")) is not correction
    assert correction_of(held, options()) is correction
    for changed in ({"learn": False}, {"verify": "adaptive"}, {"verify": "rejection"}):
        assert correction_of(held, options(**changed)) is None
    for nothing in ({"owner": None}, {"remember": False}):
        assert correction_of(held, options(**nothing)) is None
    assert len(held.corrections) == 2
    shaping = held.draft.shapings
    make_drafters(held, options(repetition_penalty=1.1))
    make_drafters(held, options(learn=False))
    asked = Shaping(1.1)
    assert shaping == [CorrectedShaping(asked=asked, correction=correction), Shaping()]


def test_what_learns_from_no_draft_takes_no_owner_s_place():
    for held, plain in (
        (models(draft=Draft(), corrections=new_corrections(10)), {"window": 0}),
        (models(corrections=new_corrections(10)), {}),
    ):
        assert correction_of(held, options(**plain, owner="me")) is None
        assert len(held.corrections) == 0


def test_a_head_is_calibrated_before_it_is_corrected():
    draft = Draft()
    draft.source = Source.FEATURES
    held = models(draft=draft, corrections=new_corrections(10))
    calibration = held.calibrations.of(frozenset())
    for lag in (1, 2, 3, 4):
        assert correction_of(held, options()) is None
        for _ in range(ENOUGH):
            calibration.observe(lag, True)
    assert correction_of(held, options()) is not None


def test_what_the_sources_are_called():
    assert kind_of([]) is None
    assert kind_of([Source.COPY]) == "lookup"
    assert kind_of([Source.MODEL]) == "model"
    assert kind_of([Source.COPY, Source.MODEL]) == "lookup and model"
    assert kind_of([Source.FEATURES]) == "head"
    assert kind_of([Source.COPY, Source.FEATURES]) == "lookup and head"
