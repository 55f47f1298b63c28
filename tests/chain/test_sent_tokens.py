"""What a spare of the first peer is sent makes it hold what that one holds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.simulated_chain import SimulatedPeer
from swarm.chain.sent_tokens import SentTokens
from swarm.decoding.windows import ResumePoint, Window
from swarm.wire.messages import Frame

HELD = ResumePoint(epoch=2, root=40, last=47, tokens=(3, 4, 5, 6))


def place(peer: SimulatedPeer, frame: Frame) -> None:
    assert frame.tokens is not None
    assert (frame.tail, frame.replay) == (0, 0), "computed, and not answered"
    window = Window(
        frame.epoch, frame.root, frame.first, frame.tokens, frame.parents, 0, frame.first
    )
    assert peer.place(window, replay=True) is not None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),  # tokens
            st.integers(0, 9),  # which of the tokens that are held they follow
            st.sampled_from(["goes on", "goes on", "takes a turn"]),
        ),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_a_spare_that_joins_at_any_time_holds_what_the_first_peer_holds(
    steps: list[tuple[int, int, str]], joins: int
) -> None:
    sent, first, spare = SentTokens(b"0" * 16, HELD), SimulatedPeer(), SimulatedPeer()
    for frame in sent.replay():
        place(first, frame)
    epoch, serial = HELD.epoch, HELD.last
    serials = [HELD.root]  # a line of tokens from the root on
    root = HELD.root
    joined = False
    for number, (count, at, turn) in enumerate(steps):
        if number == joins:
            joined = True
            for frame in sent.replay():
                place(spare, frame)
        if turn == "takes a turn":
            epoch += 1
            root = serials[at % len(serials)]
            serials = [root]
        parent = serials[-1]
        new = [serial + 1 + i for i in range(count)]
        parents = (new[0] - parent, *[1] * (count - 1))
        window = Window(epoch, root, new[0], (7,) * count, parents, count, new[0])
        serial = new[-1]
        serials += new
        frame = sent.add(window)
        first.place(window)
        if joined:
            place(spare, frame)
    if not joined:
        for frame in sent.replay():
            place(spare, frame)
    assert spare.rows == first.rows
