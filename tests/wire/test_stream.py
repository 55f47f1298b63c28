"""One rule for rollback, cancellation, retransmission and idempotence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.wire.stream import OutOfOrder, Stream


def test_frames_of_one_epoch_follow_each_other():
    stream = Stream()
    assert stream.admit(0, 0, 5)
    assert stream.admit(0, 5, 3)
    assert (stream.epoch, stream.length) == (0, 8)


def test_a_newer_epoch_cuts_the_stream_to_its_start():
    stream = Stream(epoch=1, length=10)
    assert stream.admit(2, 6, 1)
    assert (stream.epoch, stream.length) == (2, 7)


def test_a_newer_epoch_may_skip_epochs_and_may_cut_nothing_or_everything():
    stream = Stream(epoch=1, length=10)
    assert stream.admit(7, 10, 2)
    assert stream.admit(9, 0, 3)
    assert (stream.epoch, stream.length) == (9, 3)


def test_an_older_epoch_is_stale_and_changes_nothing():
    stream = Stream(epoch=3, length=10)
    for start in (0, 10, 99):
        assert not stream.admit(2, start, 4)
    assert stream == Stream(epoch=3, length=10)


@pytest.mark.parametrize(("epoch", "start"), [(3, 11), (3, 9), (3, 0), (4, 11)])
def test_a_gap_or_a_repetition_is_a_fault_that_changes_nothing(epoch, start):
    stream = Stream(epoch=3, length=10)
    with pytest.raises(OutOfOrder) as caught:
        stream.admit(epoch, start, 1)
    error = caught.value
    assert (error.epoch, error.start, error.stream_epoch, error.stream_length) == (epoch, start, 3, 10)
    assert str(error) == (f"a frame of epoch {epoch} starts at {start}, but the stream of epoch 3 has 10 positions")
    assert stream == Stream(epoch=3, length=10)


def test_a_cancelled_epoch_is_stale_before_the_newer_one_comes():
    stream = Stream(epoch=1, length=10)
    stream.cancel(3)
    assert not stream.admit(1, 10, 1)
    assert not stream.admit(2, 5, 1)
    assert stream.admit(3, 5, 1)
    assert (stream.epoch, stream.length) == (3, 6)


def test_a_cancel_that_was_overtaken_allows_nothing_again():
    stream = Stream(epoch=1, length=10)
    stream.cancel(4)
    stream.cancel(2)
    assert not stream.admit(3, 5, 1)


def test_a_late_cancel_takes_nothing_back():
    stream = Stream(epoch=5, length=10)
    stream.cancel(4)
    stream.cancel(2)
    assert stream.admit(5, 10, 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(1, 4))))
def test_whatever_comes_the_stream_has_no_gap_and_epochs_only_rise(frames):
    stream, held = Stream(), []
    for epoch, start, count in frames:
        before = stream.epoch
        try:
            admitted = stream.admit(epoch, start, count)
        except OutOfOrder:
            continue
        if admitted:
            assert start <= len(held)
            held[start:] = [(epoch, start + i) for i in range(count)]
        assert stream.length == len(held)
        assert stream.epoch >= before
    assert [position for _, position in held] == list(range(len(held)))
    assert [epoch for epoch, _ in held] == sorted(epoch for epoch, _ in held)
