"""Outputs of layers, as the client's side of a session asks for them and takes them."""

from helpers.chain_answers import SESSION, TAPS, TERMS, Sent, result, tapped
from helpers.plain_peers import plain_peer
from swarm.chain.events import Received
from swarm.chain.protocol import ChainProtocol
from swarm.decoding.windows import Window
from swarm.wire.messages import Open, Opened
from swarm.wire.taps import TapTerms


def test_outputs_of_layers_come_with_the_answer_when_all_are_told() -> None:
    chain = [plain_peer("firstpeer0", 0), plain_peer("lastpeer00", 1)]
    protocol = ChainProtocol(SESSION, chain, TERMS)
    openings = [each.message for each in protocol.join(chain, None, 0, None)]
    assert [each.taps for each in openings if isinstance(each, Open)] == [
        TapTerms(layers=(0,)),
        TapTerms(layers=(1,)),
    ]
    assert protocol.taps is None, "it is not known yet whether the peers tell any"
    protocol.opened(chain, [Opened(session=SESSION, taps=True)] * 2)
    assert protocol.taps == TAPS
    for serial in (1, 2):
        window = Window(0, serial - 1, serial, (5,), None, 1, serial - 1)
        protocol.send(window, 0.0)
        for name in ("firstpeer0", "lastpeer00")[: 3 - serial]:
            told = tapped(serial, int(name == "lastpeer00"))
            assert protocol.answer(Received(name, told, 0.0)) is None
        answer = protocol.answer(Received("lastpeer00", result([Sent(window, 0.0)]), 0.0))
        assert answer is not None
        # of the second token, the last peer does not tell any
        assert [each.serial for each in answer.taps] == [1][: 2 - serial]


def test_a_peer_that_cannot_tell_outputs_leaves_the_session_without() -> None:
    chain = [plain_peer("firstpeer0", 0), plain_peer("lastpeer00", 1)]
    protocol = ChainProtocol(SESSION, chain, TERMS)
    protocol.join(chain, None, 0, None)
    protocol.opened(chain, [Opened(session=SESSION, taps=True), Opened(session=SESSION)])
    assert protocol.taps is None
    assert [each.to.peer_id for each in protocol.change_terms(None, None)] == ["firstpeer0"]
