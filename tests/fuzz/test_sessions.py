"""Some scripts of hostile clients and next peers against real peers, and of hostile peers."""

from pathlib import Path

import pytest

from fuzz import hostile, sessions
from fuzz.sessions import Stagehand
from peers.compute.cache_budget import CacheBudget
from peers.sessions.handler import Handler
from swarm.chain.in_flight import InFlight

CORPUS = Path(__file__).parent / "corpus"


@pytest.fixture(scope="module")
def hand() -> Stagehand:
    return Stagehand.load()


def test_whatever_strangers_do_an_honest_client_gets_what_is_right_and_all_is_given_back(
    hand: Stagehand,
) -> None:
    wanted = {"Opened", "Pong", "Result"}  # a seed does not decide how threads alternate
    answers: set[str] = set()
    for seed in range(2, 10):
        report = sessions.fuzz(hand, 20, seed)
        assert report.failures == []
        answers |= report.answers
        if wanted <= answers:
            return
    assert wanted <= answers


def test_the_scripts_that_the_corpus_keeps_do_no_harm(hand: Stagehand) -> None:
    paths = sorted(CORPUS.glob("sessions-*.json"))
    assert len(paths) > 5
    assert sessions.replay(hand, paths) == []


def test_a_peer_that_forgets_to_give_cache_back_is_noticed(
    hand: Stagehand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.arena.PATIENCE_S", 0.2)
    monkeypatch.setattr(CacheBudget, "release", lambda *_: None)
    assert "cache tokens" in str(hand.play([["time", "settle", 1]]))


def test_a_handler_that_raises_is_noticed(hand: Stagehand, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("fuzz.arena.PATIENCE_S", 0.2)
    monkeypatch.setattr(Handler, "_answer", fail)
    assert "the handler raised RuntimeError" in str(hand.play([["time", "settle", 1]]))


def test_whatever_peers_answer_a_session_ends_in_time_with_answers_or_an_error() -> None:
    report = hostile.fuzz(25, seed=7)
    assert report.failures == []
    assert {"ChainBroken", "answers"} <= set(report.ends)


def test_a_client_that_raises_anything_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no")

    monkeypatch.setattr(InFlight, "answered", fail)
    assert "KeyError" in str(hostile.fuzz(5, seed=7).failures)
