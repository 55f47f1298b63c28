"""A script says the same to all; a guesser is right as often as its odds say."""

import json

import pytest

from swarm.errors import DamagedModel
from swarm.shapes.script import FIRST_WORD, SCRIPT_FILE, Guesser, Odds, Script, between

TABLE = ((1, 1.0), (4, 4.0), (8, 6.0))
VOCAB = 1000
TEXT = [5]
POSITIONS = 4000


def script(positions=POSITIONS):
    return Script.of(VOCAB, positions, TABLE, TABLE)


def test_times_lie_on_a_straight_line_between_those_of_the_table():
    assert [between(TABLE, n) for n in (1, 2, 4, 6, 8, 16)] == [1.0, 2.0, 4.0, 5.0, 6.0, 10.0]
    assert between(((1, 3.0),), 7) == 3.0
    assert script().stage_ms(layers=3, positions=2) == 6.0


def test_a_script_comes_back_as_it_was_saved(tmp_path):
    script(50).save(tmp_path)
    assert Script.load(tmp_path) == script(50)


def test_a_script_has_no_special_tokens_and_begins_again_at_its_end():
    said = script(50)
    assert all(FIRST_WORD <= token < VOCAB for token in said.tokens)
    assert said.at(53) == said.at(3)


def damaged(**changes: object) -> str:
    return json.dumps({"tokens": [5], "layer_ms": [[1, 2.0]], "head_ms": [[1, 2.0]], **changes})


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", damaged(tokens=[]), damaged(tokens=["a"]), damaged(head_ms=[[1]])],
)
def test_a_damaged_script_is_one_sentence(tmp_path, content):
    (tmp_path / SCRIPT_FILE).write_text(content)
    with pytest.raises(DamagedModel) as caught:
        Script.load(tmp_path)
    assert SCRIPT_FILE in str(caught.value)


def test_a_missing_script_is_one_sentence(tmp_path):
    with pytest.raises(DamagedModel):
        Script.load(tmp_path)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_each_choice_is_right_as_often_as_it_should_be(alpha):
    odds, said = Odds(alpha), script()
    guesser = Guesser(said, odds, VOCAB)
    choices = [guesser.choices(TEXT, position) for position in range(POSITIONS)]
    for rank, chance in enumerate(odds.by_rank):
        right = sum(said.at(at) == each[rank][0] for at, each in enumerate(choices))
        # four standard deviations at most
        assert right / POSITIONS == pytest.approx(chance, abs=4 * 0.5 / POSITIONS**0.5)
        assert all(each[rank][1] == chance for each in choices)


def test_choices_of_a_position_differ_and_are_words():
    guesser = Guesser(script(), Odds(0.5), VOCAB)
    for position in range(200):
        tokens = [token for token, _ in guesser.choices(TEXT, position)]
        assert len(set(tokens)) == len(tokens)
        assert all(FIRST_WORD <= token < VOCAB for token in tokens)


def test_luck_depends_on_text_and_position_alone():
    one, other = (Guesser(script(), Odds(0.5), VOCAB) for _ in range(2))
    forth = [one.choices(TEXT, position) for position in range(100)]
    back = [other.choices([*TEXT, 7, 8], position) for position in reversed(range(100))]
    assert forth == back[::-1]
    assert forth != [one.choices([6], position) for position in range(100)]
