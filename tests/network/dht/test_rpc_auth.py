"""Calls inside a private swarm, as an outsider would have to forge them."""

import pytest

from helpers.clock import Clock
from swarm.network.dht import rpc_auth
from swarm.network.dht.rpc_auth import MAX_AGE_S, NotAuthenticated, RpcAuthenticator, RpcCall

KEY = bytes(range(32))
CALL = RpcCall("find", "alice", "bob")


def test_members_understand_each_other() -> None:
    here, there = RpcAuthenticator(KEY), RpcAuthenticator(KEY)
    sealed, nonce = here.request(CALL, b"question")
    payload, told = there.open_request(CALL, sealed)
    assert (payload, told) == (b"question", nonce)
    assert here.open_answer(CALL, nonce, there.answer(CALL, told, b"reply")) == b"reply"


@pytest.mark.parametrize(
    "other",
    [
        RpcCall("store", "alice", "bob"),
        RpcCall("find", "mallory", "bob"),
        RpcCall("find", "alice", "carol"),
    ],
)
def test_a_call_is_good_for_its_name_caller_and_callee_only(other: RpcCall) -> None:
    sealed, nonce = RpcAuthenticator(KEY).request(CALL, b"question")
    with pytest.raises(NotAuthenticated, match="private"):
        RpcAuthenticator(KEY).open_request(other, sealed)
    with pytest.raises(NotAuthenticated):
        RpcAuthenticator(KEY).open_answer(
            CALL, nonce, RpcAuthenticator(KEY).answer(other, nonce, b"reply")
        )


@pytest.mark.parametrize("place", range(60))
def test_no_bit_may_change(place: int) -> None:
    sealed, nonce = RpcAuthenticator(KEY).request(CALL, b"four")
    changed = bytearray(sealed)
    changed[place] ^= 1
    with pytest.raises(NotAuthenticated):
        RpcAuthenticator(KEY).open_request(CALL, bytes(changed))
    if place < 36:
        answer = bytearray(RpcAuthenticator(KEY).answer(CALL, nonce, b"four"))
        answer[place] ^= 1
        with pytest.raises(NotAuthenticated):
            RpcAuthenticator(KEY).open_answer(CALL, nonce, bytes(answer))


@pytest.mark.parametrize("sealed", [b"", b"x" * 55, b"x" * 56, b"x" * 1000])
def test_what_carries_no_code_is_refused(sealed: bytes) -> None:
    with pytest.raises(NotAuthenticated, match="private"):
        RpcAuthenticator(KEY).open_request(CALL, sealed)


def test_another_network_is_not_ours() -> None:
    with pytest.raises(NotAuthenticated):
        RpcAuthenticator(KEY).open_request(
            CALL, RpcAuthenticator(bytes(32)).request(CALL, b"question")[0]
        )


def test_an_answer_is_good_for_its_request_only() -> None:
    here = RpcAuthenticator(KEY)
    _, first = here.request(CALL, b"question")
    _, second = here.request(CALL, b"question")
    with pytest.raises(NotAuthenticated):
        here.open_answer(CALL, second, RpcAuthenticator(KEY).answer(CALL, first, b"reply"))


@pytest.mark.threat("stranger-in-directory")
@pytest.mark.parametrize("defended", [True, False])
@pytest.mark.parametrize("later_s", [0.0, MAX_AGE_S / 2, MAX_AGE_S + 1, 3 * MAX_AGE_S + 1])
def test_a_call_that_was_overheard_is_taken_once(
    defended: bool, later_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not defended:
        monkeypatch.setattr(RpcAuthenticator, "_check_new", lambda *_: None)
    clock = Clock()
    there = RpcAuthenticator(KEY, clock=clock)
    sealed, _ = RpcAuthenticator(KEY, clock=clock).request(CALL, b"question")
    assert there.open_request(CALL, sealed)[0] == b"question"
    clock.now += later_s
    if defended:
        with pytest.raises(NotAuthenticated, match=r"before|old"):
            there.open_request(CALL, sealed)
    else:
        assert there.open_request(CALL, sealed)[0] == b"question"


def test_clocks_may_differ_by_a_minute() -> None:
    early, late = Clock(), Clock()
    late.now += MAX_AGE_S - 1
    for one, other in ((early, late), (late, early)):
        sealed, _ = RpcAuthenticator(KEY, clock=one).request(CALL, b"question")
        assert RpcAuthenticator(KEY, clock=other).open_request(CALL, sealed)
    late.now += 2
    for one, other in ((early, late), (late, early)):
        sealed, _ = RpcAuthenticator(KEY, clock=one).request(CALL, b"question")
        with pytest.raises(NotAuthenticated, match="clock"):
            RpcAuthenticator(KEY, clock=other).open_request(CALL, sealed)


def test_what_asks_for_the_time_may_live_in_another_time() -> None:
    late = Clock()
    late.now += 3600
    sealed, _ = RpcAuthenticator(KEY, clock=late).request(CALL, b"question")
    assert RpcAuthenticator(KEY, frozenset({CALL.name}), clock=Clock()).open_request(CALL, sealed)


def test_memory_for_nonces_is_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_auth, "MAX_NONCES", 3)
    clock = Clock()
    here, there = RpcAuthenticator(KEY, clock=clock), RpcAuthenticator(KEY, clock=clock)
    for _ in range(3):
        there.open_request(CALL, here.request(CALL, b"")[0])
    with pytest.raises(NotAuthenticated, match="too many"):
        there.open_request(CALL, here.request(CALL, b"")[0])
    with pytest.raises(NotAuthenticated, match="private"):
        there.open_request(CALL, RpcAuthenticator(bytes(32)).request(CALL, b"")[0])
    clock.now += 2 * MAX_AGE_S + 1
    assert there.open_request(CALL, here.request(CALL, b"")[0])
    assert len(there._seen) == 1
