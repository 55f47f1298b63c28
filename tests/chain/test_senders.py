from swarm.chain.senders import AcceptedSenders


def test_what_a_peer_is_just_being_told_is_not_known_yet() -> None:
    senders = AcceptedSenders()
    senders.open("peer", "one")
    senders.telling("peer")  # and nothing comes of it
    assert not senders.is_told("peer", ("one",))
    assert not senders.accepts("peer", "one")


def test_a_peer_hears_whom_it_was_told_to_hear_and_has_confirmed() -> None:
    senders = AcceptedSenders()
    senders.open("c", "a")
    senders.open("a", None)
    assert senders.accepts("c", "a")
    assert not senders.accepts("a", "c")
    assert senders.is_told("c", ("a",))
    assert not senders.is_told("c", ("a", "b"))
    senders.told("c", ("a", "b"))
    assert senders.is_told("c", ("a", "b"))
    assert not senders.accepts("c", "b"), "it has not said so"
    senders.confirmed("c", ("a", "b"))
    assert senders.accepts("c", "b")
    senders.told("c", ("d",))
    assert not senders.accepts("c", "b"), "it is told otherwise"
    assert not senders.accepts("c", "d")
    assert not senders.accepts("nobody", "a")
