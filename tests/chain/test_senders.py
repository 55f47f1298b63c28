from swarm.chain.senders import Speakers


def test_what_a_peer_is_just_being_told_is_not_known_yet() -> None:
    speakers = Speakers()
    speakers.opens("peer", "one")
    speakers.telling("peer")  # and nothing comes of it
    assert not speakers.knows("peer", ("one",))
    assert not speakers.hears("peer", "one")


def test_a_peer_hears_whom_it_was_told_to_hear_and_has_confirmed() -> None:
    speakers = Speakers()
    speakers.opens("c", "a")
    speakers.opens("a", None)
    assert speakers.hears("c", "a")
    assert not speakers.hears("a", "c")
    assert speakers.knows("c", ("a",))
    assert not speakers.knows("c", ("a", "b"))
    speakers.told("c", ("a", "b"))
    assert speakers.knows("c", ("a", "b"))
    assert not speakers.hears("c", "b"), "it has not said so"
    speakers.confirms("c", ("a", "b"))
    assert speakers.hears("c", "b")
    speakers.told("c", ("d",))
    assert not speakers.hears("c", "b"), "it is told otherwise"
    assert not speakers.hears("c", "d")
    assert not speakers.hears("nobody", "a")
