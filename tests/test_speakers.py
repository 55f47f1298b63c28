from swarm.speakers import Speakers


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
