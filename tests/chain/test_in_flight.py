"""The book of windows in flight: what a result answers, how long that took, and how long the next
one may take."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.chain import in_flight
from swarm.chain.in_flight import InFlight, NotAsked
from swarm.decoding.windows import Window
from swarm.wire.messages import Result
from swarm.wire.tensors import WireTensor


def window(first: int, count: int = 1, *, epoch: int = 0, tail: int | None = None) -> Window:
    return Window(epoch, 0, first, (3,) * count, None, count if tail is None else tail, first)


def result(*windows: Window) -> Result:
    """What a chain says that has computed these together."""
    return Result(
        session=b"0" * 16,
        epoch=windows[0].epoch,
        first=windows[0].first,
        count=sum(len(each.tokens) for each in windows),
        hidden=WireTensor.pack(torch.zeros(sum(each.tail for each in windows), 4)),
    )


@given(st.data())
def test_each_loop_is_from_the_last_window_it_answers_to_the_arrival_whenever_that_is_read(
    data: st.DataObject,
) -> None:
    """Windows of any sizes are computed singly or together; answers arrive when they do and are
    read later."""
    flight, now, first = InFlight(), 0.0, 1
    sent: list[tuple[Window, float]] = []
    for count in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)):
        now += data.draw(st.floats(0.0, 5.0))
        sent.append((window(first, count), now))
        assert not flight.sent(*sent[-1]), "no new epoch"
        first += count
    while sent:
        together = [sent.pop(0) for _ in range(data.draw(st.integers(1, len(sent))))]
        now += data.draw(st.floats(0.0, 5.0))
        answered = flight.answered(result(*(each for each, _ in together)), now)
        assert answered is not None
        assert answered.windows == tuple(each for each, _ in together)
        assert answered.loop_s == now - together[-1][1]
    assert flight.deadline is None, "nothing is in flight"


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=20))
def test_windows_of_older_epochs_may_be_answered_or_not(steps: list[tuple[int, bool]]) -> None:
    """Each window begins a new epoch or not, and is lost or not.

    Of the answers, those of the last epoch count.
    """
    flight, epoch, windows = InFlight(), 0, list[tuple[Window, bool]]()
    for first, (begins, arrives) in enumerate(steps, 1):
        epoch += begins
        windows.append((window(first, epoch=epoch), arrives))
        assert flight.sent(windows[-1][0], 0.0) == bool(begins)
        assert flight.epoch == epoch
    for each, arrives in windows:
        if each.epoch == epoch or arrives:
            try:
                answered = flight.answered(result(each), 1.0)
            except NotAsked:
                assert each.epoch < epoch, "behind one that was lost"
                return
            assert (answered is not None) == (each.epoch == epoch)


WRONG = {
    "nothing was sent": ([], window(1)),
    "another token": ([window(1)], window(2)),
    "too many": ([window(1)], window(1, 2)),
    "too few": ([window(1, 2)], window(1)),
    "another tail": ([window(1, 2)], window(1, 2, tail=1)),
    "an epoch to come": ([window(1)], window(1, epoch=1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_was_not_asked_is_no_answer(name: str) -> None:
    sent, said = WRONG[name]
    flight = InFlight()
    for each in sent:
        flight.sent(each, 0.0)
    with pytest.raises(NotAsked):
        flight.answered(result(said), 1.0)


def test_how_long_an_answer_may_take_follows_from_the_loops_before() -> None:
    flight = InFlight()
    assert flight.patience_s == in_flight.PROMPT_TIMEOUT_S
    flight.sent(window(1, 3, tail=2), 0.0)
    flight.answered(result(window(1, 3, tail=2)), 7.0)
    assert flight.patience_s == in_flight.PROMPT_TIMEOUT_S, (
        "a prompt says nothing of the loops to come"
    )
    for first in (4, 5):
        flight.sent(window(first), 10.0)
        flight.answered(result(window(first)), 12.0)
        assert flight.patience_s == in_flight.HANG_LOOPS * 2.0
    flight.rest()
    assert flight.patience_s == in_flight.PROMPT_TIMEOUT_S, "another text has another prompt"


def test_fast_loops_are_no_reason_to_lose_patience_at_once() -> None:
    flight = InFlight()
    flight.sent(window(1), 0.0)
    flight.answered(result(window(1)), 0.01)
    assert flight.patience_s == in_flight.LEAST_HANG_S


def test_patience_counts_from_the_oldest_window_or_from_what_was_heard_since() -> None:
    flight = InFlight()
    assert flight.deadline is None, "nothing is in flight"
    flight.sent(window(1), 10.0)
    flight.sent(window(2), 20.0)
    assert flight.deadline == 10.0 + in_flight.PROMPT_TIMEOUT_S
    flight.progressed(25.0)
    flight.progressed(15.0)
    assert flight.deadline == 25.0 + in_flight.PROMPT_TIMEOUT_S
    flight.go_on(1)
    assert flight.deadline is None


def test_the_last_token_that_was_sent_is_one_of_this_epoch() -> None:
    flight = InFlight()
    assert flight.last_sent == 0
    flight.sent(window(1, 4), 0.0)
    assert flight.last_sent == 4
    flight.sent(window(5, 2, epoch=1), 0.0)
    assert flight.last_sent == 6
    flight.go_on(2)
    assert flight.last_sent == 0
