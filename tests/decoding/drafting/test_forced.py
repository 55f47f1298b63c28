"""What a constraint forces is drafted without a model."""

from swarm.decoding.drafting.drafter import Source
from swarm.decoding.drafting.forced import ForcedDrafter

FORCED = {(): [7, 8, 9], (7,): [8, 9], (7, 8, 9, 1): [4]}


class Spelled:
    def forced(self, answer):
        return FORCED.get(tuple(answer), [])


def test_it_drafts_behind_the_answer_what_is_forced_there():
    drafter = ForcedDrafter(Spelled(), 2)
    lines = drafter.draft_each([1, 2], [(), (7,), (5,), (7, 8, 9, 1)], 2)
    assert [[each.token for each in line] for line in lines] == [[7, 8], [8, 9], [], [4]]
    assert {each.source for line in lines for each in line} == {Source.FORCED}
