"""What a text waited for adds up to its time, whatever went on beside it."""

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.clock import Clock
from swarm.client.critical_path import CriticalPath
from swarm.outputs import Measured

LOOP = Measured(100.0, (20.0, 10.0), (10.0, 0.0))  # of it, 60 ms on links


class Text:
    """A text whose events come when a test says so, in milliseconds since its start."""

    def __init__(self) -> None:
        self.clock = Clock(0.0)
        self.path = CriticalPath(self.clock)

    def at(self, ms: float) -> CriticalPath:
        self.clock.now = ms / 1e3
        return self.path

    def loop(self, first: int, sent: float, *, judged: float = 10.0, left: bool = True) -> float:
        """Send a frame, whose answer takes `LOOP`, and judge it; return when that is done."""
        self.at(sent).sent(first, 0.0, 0.0)
        return self.answer(first, sent, judged=judged, left=left)

    def answer(self, first: int, sent: float, *, judged: float = 10.0, left: bool = True) -> float:
        self.at(sent + 100).answered(first, self.clock.now, LOOP)
        self.at(sent + 100 + judged).judged(left)
        return sent + 100 + judged

    def milliseconds(self) -> dict[str, float]:
        share = self.path.share()
        assert share is not None
        whole = self.clock.now * 1e3
        return {name: round(part * whole, 6) for name, part in vars(share).items() if part}


def test_plain_decoding_waits_for_loops_and_the_head() -> None:
    text = Text()
    end = text.loop(1, 0.0)
    end = text.loop(2, end)
    assert text.milliseconds() == {"links": 120, "stages": 60, "judging": 20, "waiting": 20}


def test_a_window_is_drafted_before_each_loop() -> None:
    text = Text()
    text.at(0).asked()
    text.at(40).drafted(0.03)  # ten more passed before the event loop took it
    text.loop(1, 40.0)
    spent = {"links": 60, "stages": 30, "judging": 10, "drafting": 30, "waiting": 20}
    assert text.milliseconds() == spent


def test_a_stream_waits_for_its_drafter_and_not_for_its_loops() -> None:
    """Twelve frames leave as they are drafted; only the last one's loop was waited for."""
    text = Text()
    for frame in range(1, 13):
        text.at(20 * frame - 20).asked()
        text.at(20 * frame).drafted(0.02)
        text.path.sent(frame, 0.0, 0.0)
        if frame > 6:  # the answers of earlier frames come meanwhile
            text.at(20 * frame + 5).answered(frame - 6, text.clock.now, LOOP)
            text.path.judged(left=False)
    text.answer(12, 240.0, left=False)
    assert text.milliseconds() == {
        "links": 60,
        "stages": 30,
        "judging": 10,
        "drafting": 240,
        "waiting": 10,
    }


def test_a_stream_whose_drafter_is_fast_waits_for_the_slowest_stage_and_the_least_pause() -> None:
    text = Text()
    text.at(0).asked()
    text.at(1).drafted(0.001)
    for frame in range(1, 6):
        text.at(1 + 30 * (frame - 1)).sent(frame, 0.02, 0.03)
    text.answer(5, 121.0)
    assert text.milliseconds() == {
        "links": 60,
        "stages": 30 + 4 * 20,
        "judging": 10,
        "drafting": 1,
        "waiting": 10 + 4 * 10,
    }


def test_a_frame_that_only_an_answer_made_likely_enough_waits_for_that_loop() -> None:
    text = Text()
    text.at(0).asked()
    text.at(1).drafted(0.001)
    text.path.sent(1, 0.0, 0.0)
    end = text.answer(1, 1.0, left=False)
    text.loop(2, end)
    spent = {"links": 120, "stages": 60, "judging": 20, "drafting": 1, "waiting": 20}
    assert text.milliseconds() == spent


def test_answers_that_queue_for_the_head_wait_for_judging() -> None:
    """Ten frames at once; each takes 50 ms to judge."""
    text = Text()
    for frame in range(1, 11):
        text.at(0).sent(frame, 0.0, 0.0)
    for frame in range(1, 11):
        text.at(100 + 50 * (frame - 1)).answered(frame, 0.1, LOOP)
        text.at(100 + 50 * frame).judged(left=False)
    assert text.milliseconds() == {"links": 60, "stages": 30, "judging": 500, "waiting": 10}


def test_a_reader_that_comes_back_late_is_no_judging() -> None:
    text = Text()
    text.loop(1, 0.0, left=False)
    text.at(20).sent(2, 0.0, 0.0)  # the clock of a test may go back
    text.at(500).answered(2, 0.12, LOOP)
    text.at(510).judged(left=False)
    spent = {"links": 60, "stages": 30, "judging": 10, "waiting": 20 + 10 + 380}
    assert text.milliseconds() == spent


def test_a_miss_costs_a_loop_and_the_rest_of_a_void_draft() -> None:
    text = Text()
    text.at(0).sent(1, 0.0, 0.0)
    text.at(70).asked()
    end = text.answer(1, 0.0)  # it left what was drafted
    text.at(end + 60).drafted(0.1)
    text.path.asked()
    text.at(end + 160).drafted(0.1)
    text.loop(2, end + 160)
    spent = {"links": 120, "stages": 60, "judging": 20, "drafting": 160, "waiting": 20}
    assert text.milliseconds() == spent


def test_frames_that_no_answer_came_to_are_forgotten() -> None:
    text = Text()
    for frame in range(1, 50):
        text.at(frame).sent(frame, 0.0, 0.0)
    text.answer(49, 49.0)
    assert not text.path._in_flight
    text.at(300).sent(50, 0.0, 0.0)
    text.at(310).answered(49, 0.31, LOOP)  # of no frame that is known
    text.at(320).judged(left=True)
    assert not text.path._in_flight
    assert sum(text.milliseconds().values()) == pytest.approx(320)


def test_peers_that_tell_more_than_the_loop_took_are_not_believed() -> None:
    text = Text()
    text.at(0).sent(1, 0.0, 0.0)
    text.at(100).answered(1, 0.1, Measured(100.0, (3e5,), (1e5,)))
    text.path.judged(left=True)
    assert text.milliseconds() == {"stages": 75, "waiting": 25}


def test_without_an_answer_there_is_no_share() -> None:
    text = Text()
    assert text.path.share() is None
    text.at(100).judged(left=True)
    assert text.path.share() is None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["asked", "drafted", "sent", "answered", "judged", "left"]),
        st.floats(0.0, 1.0),  # seconds until then
        st.floats(0.0, 2.0),  # a time of its own
        st.integers(1, 4),  # a frame
    ),
    max_size=60,
)


@given(EVENTS)
def test_in_whatever_order_events_come_the_parts_add_up(events) -> None:
    clock = Clock(1000.0)
    path = CriticalPath(clock)
    path.start(clock())
    frame = 0
    for name, later, own, which in events:
        clock.now += later
        if name == "sent":
            frame += 1
            path.sent(frame, own / 3, own)
        elif name == "answered":
            path.answered(frame - which, clock.now - own, Measured(100 * own, (10.0,), (50.0,)))
        elif name == "drafted":
            path.drafted(own)
        elif name == "asked":
            path.asked()
        else:
            path.judged(name == "left")
        share = path.share()
        if share is not None:
            assert sum(astuple(share)) == pytest.approx(1)
            assert min(astuple(share)) > -1e-9
