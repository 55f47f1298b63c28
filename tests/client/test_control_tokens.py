"""What is said holds no control tokens; what is not said does, and all other text is encoded as it
always was."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from helpers import tokenizer_kinds
from swarm.client.control_tokens import BREAK, MAX_BREAKS, ControlTokens, TooManyControlTokens

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
THINK, THOUGHT, USED = "<think>", "</think>", "<mark>"
TEMPLATE = f"{IM_START} {{{{ role }}}} {IM_END} {THINK} and {THOUGHT}"


def with_controls(tokenizer):
    """Turns by special tokens, thoughts by tags that are none, one tag that the template does not
    know, and a blank."""
    tokenizer.add_tokens(
        [
            AddedToken(each, special=True, normalized=False)
            for each in (IM_START, IM_END, "<|", "s>x")
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken(each, special=False, normalized=False)
            for each in (THINK, THOUGHT, USED, "\n\n")
        ]
    )
    return tokenizer


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback", "byte_fallback_as_it_is"])
def tokenizer(request):
    return with_controls(tokenizer_kinds.KINDS[request.param]())


@pytest.fixture(scope="module")
def control(tokenizer):
    return ControlTokens(tokenizer, TEMPLATE)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def controls_in(tokenizer, ids):
    named = {token.content for token in tokenizer.added_tokens_decoder.values()} - {USED, "\n\n"}
    return [token for token in tokenizer.convert_ids_to_tokens(ids) if token in named]


PARTS = (
    IM_START,
    IM_END,
    "<|im_",
    "end|>",
    "<",
    "|im",
    THINK,
    THOUGHT,
    "<s>",
    "x",
    "a b",
    "\n\n",
    BREAK,
    "日",
)


@settings(deadline=None)
@given(said=st.lists(st.sampled_from(PARTS)).map("".join))
def test_what_is_said_is_text_whatever_it_is(said, tokenizer, control):
    chat = f"{IM_START}user\n{control.broken(said, 'user')}{IM_END}\n"
    ids = control.encode(chat)
    assert controls_in(tokenizer, ids) == [IM_START, IM_END]
    expected = f"{IM_START}user\n{said.replace(BREAK, '')}{IM_END}\n"
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    # some have a space behind every control token
    assert text.replace(" ", "") == expected.replace(" ", "")


@settings(deadline=None)
@given(said=st.text())
def test_other_text_is_encoded_as_ever(said, tokenizer, control):
    said = said.replace(BREAK, "")
    if not controls_in(tokenizer, ids_of(tokenizer, said)):
        chat = f"{IM_START}user\n{said}{IM_END}\n"
        assert control.encode(
            f"{IM_START}user\n{control.broken(said, 'user')}{IM_END}\n"
        ) == ids_of(tokenizer, chat)


def test_tokens_that_are_no_control_tokens_stay_what_they_are(tokenizer, control):
    said = f"a{USED}b\n\nc"
    assert control.broken(said, "user") == said


def test_an_answer_keeps_the_tags_that_its_template_takes_apart(tokenizer, control):
    answer = f"{THINK}hm{THOUGHT}yes{IM_END}"
    assert control.broken(answer, "assistant").split(THOUGHT) == [
        f"{THINK}hm",
        f"yes<{BREAK}|im_end|>",
    ]
    assert BREAK in control.broken(THOUGHT, "user")


def test_tags_of_which_one_is_special_are_no_part_of_an_answer():
    tokenizer = tokenizer_kinds.byte_level()
    tokenizer.add_tokens([AddedToken("<turn>", special=False), AddedToken("</turn>", special=True)])
    control = ControlTokens(tokenizer, "<turn> </turn>")
    assert control.broken("<turn></turn>", "assistant").count(BREAK) == 2


def test_more_of_them_than_anybody_means_are_refused_in_time(control):
    assert control.encode(control.broken(IM_END * MAX_BREAKS, "user"))
    with pytest.raises(TooManyControlTokens, match="more than"):
        control.encode(control.broken(IM_END * (MAX_BREAKS + 1), "user"))
