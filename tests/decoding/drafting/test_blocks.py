"""Drafting by blocks: what the reader is given, where blocks begin, and how far they reach."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from swarm.decoding.drafting import blocks
from swarm.decoding.drafting.blocks import BlockDrafter
from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.drafting.vocabulary import SameVocabulary
from swarm.decoding.sampling import Sampling

VOCABULARY = 40
SIZE = 4
TEXT = [5, 6, 7, 8]
STOP = 39


class Counting:
    """A reader whose slots predict the block's last known token and one more for each slot; it
    notes what it is given."""

    known = 100
    context = 64
    size = SIZE
    first = 1

    def __init__(self) -> None:
        self.rows: list[tuple[int, float]] = []  # position, output
        self.passes: list[tuple[list[list[int]], int]] = []
        self.befores: list[list[int]] = []
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1

    def add(self, outputs: Tensor, positions: Sequence[int]) -> None:
        self.rows += zip(positions, outputs[:, 0].tolist(), strict=True)

    def read(self, blocks: Sequence[Sequence[int]], anchor: int) -> Tensor:
        self.passes.append(([list(block) for block in blocks], anchor))
        states = torch.zeros(len(blocks), self.size, VOCABULARY)
        for block, rows in zip(blocks, states, strict=True):
            for slot, row in enumerate(rows):
                row[(block[-1] + 1 + slot - (len(block) - 1 + self.first)) % VOCABULARY] = 9.0
        return states

    def logits(self, states: Tensor, before: Sequence[int]) -> Tensor:
        self.befores.append(list(before))
        return states


@pytest.fixture
def reader() -> Counting:
    return Counting()


@pytest.fixture
def drafter(reader: Counting) -> BlockDrafter:
    chooser = Chooser(Sampling(), SameVocabulary(VOCABULARY), stop_ids=frozenset({STOP}))
    return BlockDrafter(reader, chooser)


def features(*positions: int) -> list[Feature]:
    """Outputs of a text's tokens, each with its position as its value."""
    return [Feature(at, (), torch.full((2,), float(at))) for at in positions]


def ahead(*path: int, value: float, text: int = len(TEXT)) -> Feature:
    return Feature(text + len(path) - 1, path, torch.full((2,), value))


def tokens(lines: list[list[Drafted]]) -> list[list[int]]:
    return [[guess.token for guess in line] for line in lines]


def test_a_drafter_says_what_it_reads(reader: Counting, drafter: BlockDrafter) -> None:
    other = BlockDrafter(reader, drafter.chooser, 7, (1, 3))
    assert (other.prompt_features, other.taps) == (7, (1, 3))


# What is known of the target.


def test_nothing_is_drafted_before_anything_is_known(
    drafter: BlockDrafter, reader: Counting
) -> None:
    assert drafter.draft_each(TEXT, [(), (9,)], 3) == [[], []]
    drafter.answered([], features(0))
    assert drafter.draft_each([], [()], 3) == [[]], "there is no text to go on from"
    assert reader.passes == []


def test_an_output_is_read_once(drafter: BlockDrafter, reader: Counting) -> None:
    drafter.answered(TEXT, features(0, 1))
    drafter.answered(TEXT, features(1, 2))
    drafter.answered(TEXT, [])
    assert reader.rows == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_outputs_beyond_the_context_are_not_read(drafter: BlockDrafter, reader: Counting) -> None:
    drafter.answered([1] * 80, features(62, 63, 64, 65))
    assert [at for at, _ in reader.rows] == [62, 63]


def test_outputs_at_drafted_tokens_are_read_once_these_are_committed(
    drafter: BlockDrafter, reader: Counting
) -> None:
    drafter.answered(TEXT, [*features(3), ahead(9, value=4.0), ahead(8, value=-1.0)])
    drafter.answered(TEXT, [ahead(9, 10, value=5.0), ahead(9, 11, value=-2.0)])
    assert [at for at, _ in reader.rows] == [3]
    drafter.answered([*TEXT, 9, 10], [])
    assert reader.rows[1:] == [(4, 4.0), (5, 5.0)]
    drafter.answered([*TEXT, 9, 10, 12], [])
    assert len(reader.rows) == 3, "the others are left"


def test_only_so_many_outputs_wait(
    drafter: BlockDrafter, reader: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MAX_AHEAD", 2)
    waiting = [ahead(token, value=float(token)) for token in (9, 10, 11)]
    drafter.answered(TEXT, waiting)
    drafter.answered([*TEXT, 9], [])
    assert reader.rows == [], "the oldest was dropped"
    drafter.answered(TEXT, waiting)
    drafter.answered([*TEXT, 10], [])
    assert reader.rows == [(4, 10.0)]


def test_another_text_begins_anew(drafter: BlockDrafter, reader: Counting) -> None:
    drafter.answered(TEXT, [*features(0, 1), ahead(9, value=4.0)])
    assert reader.forgotten == 0
    assert drafter.draft_each([5, 9, 1], [()], 1) == [[]], "nothing is known of it"
    assert reader.forgotten == 1
    drafter.answered([5, 9, 1, 9, 9], features(0))
    assert reader.rows[2:] == [(0, 0.0)], "what waited is dropped, and 0 is read again"


# What is drafted.


def test_a_block_begins_behind_what_is_known_and_has_what_is_in_flight(
    drafter: BlockDrafter, reader: Counting
) -> None:
    drafter.answered(TEXT, features(0, 1))
    assert tokens(drafter.draft_each(TEXT, [(), (20,)], 1)) == [[9], [21]]
    assert reader.passes == [([[7, 8], [7, 8, 20]], 2)]
    assert reader.befores == [[8, 20]]


def test_a_block_has_at_least_the_texts_last_token(drafter: BlockDrafter, reader: Counting) -> None:
    drafter.answered(TEXT, features(0, 1, 2, 3))
    assert tokens(drafter.draft_each(TEXT, [()], 2)) == [[9, 10]]
    assert reader.passes == [([[8]], 3)]


def test_one_pass_drafts_as_much_as_was_asked_for_or_as_the_block_has_room_for(
    drafter: BlockDrafter, reader: Counting
) -> None:
    drafter.answered(TEXT, features(0, 1, 2))
    paths = [(), (20,), (20, 21), (20, 21, 22)]
    assert tokens(drafter.draft_each(TEXT, paths, 2)) == [[9, 10], [21, 22], [22], []]
    assert tokens(drafter.draft_each(TEXT, paths, 9)) == [[9, 10, 11], [21, 22], [22], []]
    assert [len(each) for each, _ in reader.passes] == [3, 3], "one has no room from the start"
    assert reader.befores[-3:] == [[8, 20, 21], [9, 21], [10]]


def test_each_token_is_chosen_behind_those_drafted_before_it(reader: Counting) -> None:
    behind: list[list[list[int]]] = []

    class Noting(Chooser):
        def choose(
            self, predicted: Tensor, text: Sequence[int], paths: Sequence[Sequence[int]]
        ) -> Iterator[Drafted]:
            assert text == TEXT
            behind.append([list(path) for path in paths])
            return super().choose(predicted, text, paths)

    drafter = BlockDrafter(reader, Noting(Sampling(), SameVocabulary(VOCABULARY)))
    drafter.answered(TEXT, features(0, 1, 2))
    drafter.draft_each(TEXT, [(), (20,)], 2)
    assert behind == [[[], [20]], [[9], [20, 21]]]


def test_a_line_ends_with_the_text(drafter: BlockDrafter) -> None:
    drafter.answered(TEXT, features(0, 1, 2))
    assert tokens(drafter.draft_each(TEXT, [(STOP - 1,), (30,)], 2)) == [[STOP], [31, 32]]


@pytest.mark.parametrize(("length", "drafted"), [(62, [9]), (63, [9]), (64, [])])
def test_a_head_drafts_within_its_context(
    length: int, drafted: list[int], drafter: BlockDrafter
) -> None:
    text = [8] * length
    drafter.answered(text, features(length - 2))
    assert tokens(drafter.draft_each(text, [()], 1)) == [drafted]


def test_nothing_is_drafted_behind_a_token_that_the_head_does_not_know(
    drafter: BlockDrafter, reader: Counting
) -> None:
    drafter.answered(TEXT, features(0, 1, 2))
    assert tokens(drafter.draft_each(TEXT, [(reader.known,), (20,)], 1)) == [[], [21]]


def test_a_pass_reads_only_so_many_blocks(
    drafter: BlockDrafter, reader: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MAX_LEAVES", 2)
    drafter.answered(TEXT, features(0, 1, 2))
    assert tokens(drafter.draft_each(TEXT, [(1,), (2,), (3,)], 1)) == [[2], [3], []]
