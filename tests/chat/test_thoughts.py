"""A chat in the terminal folds away what the model thinks."""

import pytest

from helpers import tokenizer_kinds
from swarm.chat.chat import ChatAnswer
from swarm.chat.display import TextDisplay
from swarm.chat.thoughts import NO_THOUGHTS, Thoughts
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline
from swarm.outputs import Piece

TEMPLATE = "{{ messages[0].content }}<think>\n{# </think> #}"


@pytest.fixture
def tokenizer():
    tokenizer = tokenizer_kinds.byte_level()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.mark.parametrize("opened", [True, False])
def test_thoughts_are_not_printed(tokenizer, opened, capsys):
    waited = []
    display = TextDisplay(waited.append, figures=False, thoughts=Thoughts.of(tokenizer))
    display.begins(tokenizer("x <think>\n" if opened else "x").input_ids)
    for text in ("" if opened else "<think>", "Two ", "numbers.</th", "ink>\n\nIt is", " 3. "):
        display.piece(Piece(0, text, "target"))
    assert waited == ["thinking", "thinking", "", ""]
    display.ended(ChatAnswer("x", "It is 3."))
    assert capsys.readouterr().out == "It is 3. \n"


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}"])
def test_without_thoughts_all_is_printed(tokenizer, template, capsys):
    tokenizer.chat_template = template
    display = TextDisplay(lambda _: None, figures=False, thoughts=Thoughts.of(tokenizer))
    display.begins(tokenizer("x").input_ids)
    display.piece(Piece(0, "<think>x\n ", "target"))
    assert capsys.readouterr().out == "<think>x\n "


@pytest.mark.parametrize("opened", [True, False])
def test_a_constraint_leaves_thoughts_free(tokenizer, opened):
    prompt = tokenizer("x <think>\n" if opened else "x").input_ids
    constraint = Constraint("regex", "[0-9]+")
    before = Thoughts.of(tokenizer).before({"constraint": constraint, "seed": 3}, prompt)
    outline = Outline(constraint, ("<think>", "</think>"), begun=opened)
    assert before == {"constraint": outline, "seed": 3}
    assert NO_THOUGHTS.before({"constraint": constraint}, prompt) == {"constraint": constraint}
    assert Thoughts.of(tokenizer).before({"seed": 3}, prompt) == {"seed": 3}
