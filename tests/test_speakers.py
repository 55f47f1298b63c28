from swarm.speakers import Speakers


def test_a_peer_is_told_once_and_hears_whom_it_has_confirmed() -> None:
    speakers = Speakers()
    speakers.opens("c", "a")
    speakers.opens("a", None)
    assert speakers.hears("c", "a")
    assert not speakers.hears("a", "c")
    assert not speakers.names("c", ("a",))
    assert speakers.names("c", ("a", "b"))
    assert not speakers.names("c", ("a", "b"))
    assert not speakers.hears("c", "b"), "it has not said so"
    speakers.confirms("c", ("a", "b"))
    assert speakers.hears("c", "b")
    assert speakers.names("c", ("d",))
    assert not speakers.hears("c", "b"), "it is told otherwise"
    assert speakers.hears("c", "d") is False
    assert not speakers.hears("nobody", "a")
