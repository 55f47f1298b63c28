"""Why an audit came to no comparison, in words."""

import pickle

import pytest

from swarm.audit.unaudited import Reason, Unaudited


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_told_in_words_of_its_own(reason: Reason) -> None:
    assert str(Unaudited(reason)) == reason.in_words
    assert [each for each in Reason if each.in_words == reason.in_words] == [reason]


def test_what_is_known_besides_takes_the_place_of_the_reason() -> None:
    told = Unaudited(Reason.BROKEN, "the peer b hung up")
    assert str(told) == "the peer b hung up"
    again = pickle.loads(pickle.dumps(told))
    assert (again.reason, again.why) == (told.reason, told.why)
