"""Answers of which a part is constrained: thoughts and text are free, drafted or not."""

import json
import re
from dataclasses import replace

import pytest
import torch
from client.test_grammar import (
    AHEAD,
    END,
    ENDS,
    PERSON,
    PLAIN,
    PROMPT,
    VOCABULARY,
    logits_behind,
    schema,
    write,
)

from swarm.client.grammar import Grammars
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline, Trigger
from swarm.demo.tokenizer import train_tokenizer
from swarm.errors import RequestError

THINK = ("<think>", "</think>")
CALL = "<tool_call>"
ADD = schema(
    {
        "type": "object",
        "properties": {
            "name": {"const": "add"},
            "arguments": {"type": "object", "maxProperties": 0},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
)
CALLED = '{"name":"add","arguments":{}}'
SHORT = schema({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]})
THOUGHTFUL = Outline(schema(PERSON), THINK)
CALLING = Outline(triggers=(Trigger(CALL, ADD),))
FOUND = json.dumps({"name": "x", "age": 1})


def tokenizer_with(*tokens):
    tokenizer = train_tokenizer(texts=100)
    tokenizer.add_tokens(list(tokens))
    assert len(tokenizer) <= VOCABULARY
    return tokenizer


@pytest.fixture(scope="module", params=["tokens", "texts"])
def tokenizer(request):
    """The markers are tokens of their own, or spelled letter by letter."""
    return tokenizer_with(*(*THINK, CALL) * (request.param == "tokens"))


@pytest.fixture(scope="module")
def grammars(tokenizer):
    return Grammars(tokenizer, VOCABULARY)


def allowed_behind(mask, tokenizer, text):
    """Return the texts of the tokens that may follow; None if all may."""
    banned = mask.banned(tokenizer(text, add_special_tokens=False).input_ids)
    if banned is None:
        return None
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    return {text for text, bad in zip(texts, banned, strict=False) if not bad}


def ends(mask, tokenizer, text):
    return mask.ends(tokenizer(text, add_special_tokens=False).input_ids)


def test_thoughts_are_free_and_the_answer_is_not(grammars, tokenizer):
    mask = grammars.mask(THOUGHTFUL, ENDS)
    beginning = allowed_behind(mask, tokenizer, "")
    assert "{" in beginning
    assert {"<think>", "<"} & beginning
    assert "}" not in beginning
    open_thoughts = allowed_behind(mask, tokenizer, '<think>A "name": }')
    assert tokenizer.eos_token not in open_thoughts
    assert {"}", "[", "a", " ", "<"} <= open_thoughts
    answer = allowed_behind(mask, tokenizer, "<think>Hm.</think>")
    assert {"{", "\n"} <= answer
    assert "a" not in answer
    assert "\n" not in allowed_behind(mask, tokenizer, "<think>Hm.</think>\n\n")
    assert ends(mask, tokenizer, f"<think>{FOUND}</think>\n{FOUND}")
    assert ends(mask, tokenizer, FOUND)
    assert not ends(mask, tokenizer, f"<think>{FOUND}")
    forced = mask.forced(tokenizer('<think>Hm.</think>\n{"na', add_special_tokens=False).input_ids)
    assert tokenizer.decode(forced).startswith('me"')
    assert mask.forced(tokenizer("<think>{", add_special_tokens=False).input_ids) == []


def test_thoughts_that_the_prompt_has_opened_need_no_opening(grammars, tokenizer):
    mask = grammars.mask(replace(THOUGHTFUL, begun=True), ENDS)
    assert "}" in allowed_behind(mask, tokenizer, "")
    assert ends(mask, tokenizer, f"Hm.</think>{FOUND}")
    assert not ends(mask, tokenizer, FOUND)


def test_calls_are_constrained_and_text_around_them_is_not(grammars, tokenizer):
    mask = grammars.mask(CALLING, ENDS)
    assert allowed_behind(mask, tokenizer, "I add { } ") is None
    for before in ("", "I add.\n", f"{CALL}\n{CALLED}\n</tool_call>\n"):
        text = f"{before}{CALL}"
        assert not {"a", "[", tokenizer.eos_token} & allowed_behind(mask, tokenizer, text)
        assert {"{", "\n"} <= allowed_behind(mask, tokenizer, text)
        assert allowed_behind(mask, tokenizer, f"{text}\n{CALLED}") is None
        assert not ends(mask, tokenizer, f"{text}\n{CALLED}")


def test_a_call_may_stand_in_place_of_a_constrained_answer(grammars, tokenizer):
    outline = Outline(schema(PERSON), THINK, calls=CALL, triggers=(Trigger(CALL, ADD),))
    mask = grammars.mask(outline, ENDS)
    for before in ("", "<think>Hm.</think>\n"):
        assert ends(mask, tokenizer, before + FOUND)
        assert "a" not in allowed_behind(mask, tokenizer, before)
        assert "{" in allowed_behind(mask, tokenizer, f"{before}{CALL}\n")
        assert '"' not in allowed_behind(mask, tokenizer, f"{before}{CALL}\n")
        assert allowed_behind(mask, tokenizer, f"{before}{CALL}\n{CALLED}") is None
    loose = grammars.mask(replace(outline, triggers=()), ENDS)
    assert allowed_behind(loose, tokenizer, f"{CALL}a") is None


def test_what_stands_before_a_marker_may_tell_the_part(grammars, tokenizer):
    """As in harmony's channels: what is final ends the answer, what is no call is free."""
    final = Trigger("<m>", schema(PERSON), r"final[^<]*", final=True)
    call = Trigger("<m>", Constraint("regex", "[0-9]"), r"to=add[^<]*")
    mask = grammars.mask(Outline(triggers=(call, final)), ENDS)
    assert tokenizer.eos_token not in allowed_behind(mask, tokenizer, "analysis<m>Hm.")
    assert allowed_behind(mask, tokenizer, "analysis<m>Hm.<c>to=add json<m>") >= {"1"}
    assert allowed_behind(mask, tokenizer, "to=add<m>1") is None
    assert "}" not in allowed_behind(mask, tokenizer, "analysis<m>Hm.<c>final<m>")
    assert ends(mask, tokenizer, f"analysis<m>Hm.<c>final<m>{FOUND}")


def test_no_token_carries_text_beyond_a_marker(grammars, tokenizer):
    """A part has to begin with a token of its own: else its beginning would be unconstrained."""
    mask = grammars.mask(replace(THOUGHTFUL, begun=True), ENDS)
    longer = [
        token
        for token, text in enumerate(grammars._texts.all)
        if re.match(r">[ \t\r\n]*[^ \t\r\n]", text)
    ]
    ids = tokenizer("Hm.</think", add_special_tokens=False).input_ids
    banned = mask.banned(ids)
    assert all(banned[token] for token in longer)
    assert not banned[tokenizer(">", add_special_tokens=False).input_ids[0]]


def logits_with(markers):
    """Return logits of a model without sense, which likes to write markers."""

    def logits(text, salt):
        row = logits_behind(text, salt)
        row[markers] += 4
        return row

    return logits


@pytest.mark.parametrize(
    "outline",
    [
        Outline(SHORT, THINK),
        Outline(SHORT, THINK, begun=True),
        CALLING,
        Outline(None, THINK, triggers=CALLING.triggers),
        Outline(SHORT, THINK, calls=CALL, triggers=CALLING.triggers),
    ],
    ids=["thinks", "begun", "calls", "thinks, calls", "all"],
)
def test_drafting_does_not_change_the_text(outline):
    tokenizer = tokenizer_with(*THINK, CALL)
    grammars = Grammars(tokenizer, VOCABULARY)
    logits = logits_with(tokenizer.convert_tokens_to_ids([*THINK, CALL]))
    parts = 0
    for salt in range(8):
        options = (salt, (0.0, 1.0)[salt % 2], 40, logits)
        drafted = write(grammars.mask(outline, ENDS), salt, AHEAD, *options[1:])
        plain = write(grammars.mask(outline, ENDS), salt, PLAIN, *options[1:])
        assert drafted.tokens == plain.tokens
        text = tokenizer.decode([token for token in plain.tokens[len(PROMPT) :] if token != END])
        begun = outline.begun or text.startswith("<think>")
        _, closed, answer = text.partition("</think>") if begun else ("", "-", text)
        if closed and outline.answer and plain.finish_reason == "stop" and CALL not in answer:
            assert json.loads(answer)["a"] in (1, 2)
            parts += 1
        for behind in answer.split(CALL)[1:] if outline.triggers else ():
            called = "".join(json.dumps(json.loads(CALLED)).split())
            assert called.startswith("".join(behind.split())[: len(called)])
            parts += 1
    assert parts


def test_a_part_that_cannot_be_compiled_is_refused(grammars):
    with pytest.raises(RequestError, match="unclosed group"):
        grammars.mask(Outline(triggers=(Trigger(CALL, Constraint("regex", "a(")),)), ENDS)


def test_a_mask_does_not_depend_on_what_it_was_asked_before(grammars, tokenizer):
    outline = Outline(schema(PERSON), THINK, calls=CALL, triggers=(Trigger(CALL, ADD),))
    text = f"<think>Hm.</think>\n{CALL}\n{CALLED}\n{CALL}"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    used = grammars.mask(outline, ENDS)
    for length in [*range(len(ids)), 3, len(ids), 0, len(ids) - 4]:
        for beginning in (ids[:length], [*ids[:length], 9]):
            fresh = grammars.mask(outline, ENDS)
            banned, expected = used.banned(beginning), fresh.banned(beginning)
            assert (banned is None) == (expected is None)
            assert banned is None or torch.equal(banned, expected)
            assert used.forced(beginning) == fresh.forced(beginning)
