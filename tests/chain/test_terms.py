"""What a session is opened for decides which answers are taken, and the last peer is blamed for the
others."""

import dataclasses

import pytest
import torch

from helpers.plain_peers import plain_peer
from swarm.audit.guard import Guard
from swarm.chain.terms import Terms
from swarm.decoding.candidates import CandidateRow, choose_candidates, whole_row
from swarm.errors import ChainBroken, Implausible
from swarm.wire.candidates import Candidates, HeadTerms
from swarm.wire.messages import Refined, Result, Tapped
from swarm.wire.taps import LayerOutputs, TapTerms
from swarm.wire.tensors import WireTensor

SESSION = b"0" * 16
WIDTH = 4
VOCABULARY = 1000
SERIAL = 7
POSITION = 17
LAST = plain_peer("last")
HEAD = HeadTerms(count=8)
ROW = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3
FOR_STATES = Terms("0" * 32, max_tokens=64, hidden_size=WIDTH)
FOR_CANDIDATES = dataclasses.replace(FOR_STATES, head=HEAD, vocabulary=VOCABULARY)


def states(width: int = WIDTH) -> Result:
    hidden = WireTensor.pack(torch.ones(1, width))
    return Result(session=SESSION, epoch=0, first=1, count=1, hidden=hidden)


def candidates(count: int = 8, row: torch.Tensor = ROW) -> Candidates:
    return choose_candidates(row[None], [POSITION], HeadTerms(count=count))


def told() -> CandidateRow:
    (row,) = FOR_CANDIDATES.candidates(candidates(), LAST)
    return row


def refined(answer: Candidates, count: int, serial: int = SERIAL) -> CandidateRow:
    message = Refined(session=SESSION, serial=serial, candidates=answer)
    return FOR_CANDIDATES.refined(message, SERIAL, count, told(), LAST)


def test_an_answer_is_of_the_kind_that_was_asked_for() -> None:
    of_head = Result(session=SESSION, epoch=0, first=1, count=1, candidates=candidates())
    FOR_STATES.check_kind(states(), LAST)
    FOR_CANDIDATES.check_kind(of_head, LAST)
    with pytest.raises(ChainBroken, match="was to answer hidden states") as caught:
        FOR_STATES.check_kind(of_head, LAST)
    assert caught.value.peer_id == LAST.peer_id
    with pytest.raises(ChainBroken, match="was to answer candidates"):
        FOR_CANDIDATES.check_kind(states(), LAST)
    with pytest.raises(ChainBroken, match="5 wide, not 4"):
        FOR_STATES.check_kind(states(WIDTH + 1), LAST)


def test_the_guard_judges_hidden_states() -> None:
    assert FOR_STATES.hidden_states(states(), LAST).tolist() == [[1.0] * WIDTH]
    guarded = dataclasses.replace(FOR_STATES, guard=Guard())
    zero = states().model_copy(update={"hidden": WireTensor.pack(torch.zeros(1, WIDTH))})
    with pytest.raises(Implausible, match="answer is zero"):
        guarded.hidden_states(zero, LAST)


def test_more_of_a_prediction_goes_on_from_what_was_told() -> None:
    assert len(refined(candidates(64), 64).tokens) == 64
    assert len(refined(whole_row(ROW, HEAD), 0).tokens) == VOCABULARY


def test_what_cannot_be_more_of_a_prediction_is_refused() -> None:
    with pytest.raises(Implausible, match="another prediction"):
        refined(candidates(64), 64, serial=SERIAL + 1)
    with pytest.raises(Implausible, match="logits of all tokens"):
        refined(candidates(8), 0)
    with pytest.raises(Implausible, match="contradicts what it told before"):
        refined(candidates(64, ROW + 1.0), 64)
    with pytest.raises(Implausible):
        refined(candidates(8), 64)


def tapped(outputs: torch.Tensor, layers: tuple[int, ...] = (0,)) -> Tapped:
    (packed,) = LayerOutputs.pack(outputs, float8=False)
    return Tapped(session=SESSION, first=1, layers=layers, outputs=packed)


def test_outputs_of_layers_are_those_that_this_peer_was_asked_for() -> None:
    terms = dataclasses.replace(FOR_STATES, taps=TapTerms(layers=(0, 2)))
    assert terms.outputs(tapped(torch.ones(2, 1, WIDTH)), LAST).tolist() == [[[1.0] * WIDTH]] * 2
    nothing_asked = plain_peer("other", 1)
    for peer, message in (
        (LAST, tapped(torch.ones(1, 1, WIDTH), (2,))),
        (LAST, tapped(torch.ones(1, 2, WIDTH), (0, 2))),
        (nothing_asked, tapped(torch.ones(1, 1, WIDTH), (1,))),
    ):
        with pytest.raises(ChainBroken, match="was not asked for") as caught:
            terms.outputs(message, peer)
        assert caught.value.peer_id == peer.peer_id
    with pytest.raises(ChainBroken, match="5 wide, not 4"):
        terms.outputs(tapped(torch.ones(1, 1, WIDTH + 1)), LAST)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ChainBroken, match="not finite"):
            terms.outputs(tapped(torch.full((1, 1, WIDTH), value)), LAST)


def test_terms_change_for_the_peers_that_they_concern() -> None:
    chain = [plain_peer("a", 0), plain_peer("b", 1), plain_peer("c", 2)]
    taps = TapTerms(layers=(0, 2))
    tapping = dataclasses.replace(FOR_CANDIDATES, taps=taps)
    able = {"a", "b"}.__contains__

    def changed(now: Terms, before: Terms) -> list[tuple[str, object, object]]:
        found = now.changed(before, chain, lambda peer: able(peer.peer_id))
        return [(peer.peer_id, head, taps) for peer, head, taps in found]

    assert changed(tapping, tapping) == []
    assert changed(tapping, FOR_CANDIDATES) == [("a", None, TapTerms(layers=(0,)))]
    assert changed(FOR_STATES, tapping) == [("a", None, None), ("c", None, None)]
    other = dataclasses.replace(tapping, head=HeadTerms(count=64))
    assert changed(other, tapping) == [("c", HeadTerms(count=64), None)]


def test_what_may_wait_to_be_read_is_counted_in_bytes_of_what_was_asked_for():
    wide = dataclasses.replace(FOR_STATES, hidden_size=4096)
    assert 40 << 20 < wide.most_waiting_bytes < 41 << 20
    taps = TapTerms(layers=(2, 16, 29))
    tapping = dataclasses.replace(wide, taps=taps)
    assert 65 << 20 < tapping.most_waiting_bytes < 67 << 20
    exact = dataclasses.replace(wide, taps=taps.model_copy(update={"float8": False}))
    assert exact.most_waiting_bytes > 2 * tapping.most_waiting_bytes
    unknown = dataclasses.replace(FOR_STATES, hidden_size=None)
    assert unknown.most_waiting_bytes > wide.most_waiting_bytes
