"""Constrained answers: they are in the language asked for, and drafting does not change them."""

import json
import re
import zlib
from collections.abc import Callable

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.random_schemas import compact, random_schema
from helpers.simulated_chain import SimulatedChain
from helpers.tokenizer_kinds import word_pieces
from swarm.client.grammar import Grammars
from swarm.client.outline_mask import AnswerMask
from swarm.decoding.constraint import MAX_CHARS, Constraint, json_object
from swarm.decoding.decoder import Decoder
from swarm.decoding.drafting.drafter import Drafted, Source
from swarm.decoding.drafting.forced import ForcedDrafter
from swarm.decoding.policy import SpeculationPlan
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import Shaping
from swarm.demo.tokenizer import train_tokenizer
from swarm.errors import ConstraintFailed, RequestError

TOKENIZER = train_tokenizer(texts=100)
SPARE = 5  # of the vocabulary that the tokenizer does not have, as many models have some
VOCABULARY = len(TOKENIZER) + SPARE
END = TOKENIZER.eos_token_id
ENDS = frozenset({END})
PROMPT = TOKENIZER("Problem:").input_ids
SCHEMAS = 250
LogitsBehind = Callable[[tuple[int, ...], int], torch.Tensor]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER, VOCABULARY)


def schema(content: object) -> Constraint:
    return Constraint("json_schema", json.dumps(content))


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False).input_ids)


def logits_behind(text: tuple[int, ...], salt: int) -> torch.Tensor:
    """Return the logits of a model without sense: a function of the text, END a little likelier."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr(text).encode(), salt))
    logits = torch.randn(VOCABULARY, generator=generator) * 2
    logits[END] += 3
    return logits


def write(
    mask: AnswerMask,
    salt: int,
    plan: SpeculationPlan,
    temperature: float,
    new: int,
    logits_behind: LogitsBehind = logits_behind,
) -> Decoder:
    """Write a text with random logits; half of the model's drafts are right."""
    shaping = Shaping().of_text(len(PROMPT), [mask])
    decoder = Decoder(
        PROMPT,
        Strict(Sampling(temperature, seed=salt)),
        max_new_tokens=new,
        shaping=shaping,
        stop_ids=ENDS,
        ends_text=lambda _: mask.ends(decoder.tokens[len(PROMPT) :]),
    )
    decoder.plan = plan
    decoder.sources = (Source.FORCED, Source.MODEL)
    forced = ForcedDrafter(mask, len(PROMPT))
    chain = SimulatedChain()

    def guess(text: list[int]) -> Drafted:
        wrong = zlib.crc32(repr(text).encode(), salt + 1) % 2
        row = shaping.apply(logits_behind((*text, -wrong), salt)[None], text)
        return Drafted(Sampling(temperature, seed=salt).choose(row, len(text))[0], None, 0.6)

    while not decoder.finish_reason:
        asked = 0
        while (ask := decoder.ask()) and asked < 8:
            asked += 1
            lines = [[guess([*ask.text, *path])] for path in ask.paths]
            if ask.source is Source.FORCED:
                lines = forced.draft_each(ask.text, ask.paths, ask.count)
            decoder.propose(ask, lines)
        if ask:
            decoder.propose(ask, [])
        while window := decoder.next_window():
            chain.send(window)
        chain.flow()
        windows, texts = chain.answers.popleft()
        taken = decoder.take(windows)
        rows = [logits_behind(texts[row], salt) for row, _ in taken]
        if rows:
            decoder.judge([node for _, node in taken], torch.stack(rows))
    return decoder


def text_of(decoder: Decoder) -> str:
    answer = [token for token in decoder.tokens[len(PROMPT) :] if token not in ENDS]
    return str(TOKENIZER.decode(answer, clean_up_tokenization_spaces=False))


PLAIN = SpeculationPlan()
AHEAD = SpeculationPlan(window=6, depth=8, branches=3, leaves=2)


def test_every_text_validates_or_ends_by_length(grammars: Grammars) -> None:
    ended = 0
    for seed in range(SCHEMAS):
        content = random_schema(seed)
        constraint = Constraint("json_schema", compact(content))
        temperature = (0.0, 1.0)[seed % 2]
        drafted = write(grammars.mask(constraint, ENDS), seed, AHEAD, temperature, 40)
        if seed % 4 < 2:
            plain = write(grammars.mask(constraint, ENDS), seed, PLAIN, temperature, 40)
            assert drafted.tokens == plain.tokens, content
            assert drafted.finish_reason == plain.finish_reason
        if drafted.finish_reason == "stop":
            ended += 1
            parsed = json.loads(text_of(drafted))
            jsonschema.validate(parsed, content)
    assert ended > SCHEMAS / 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_a_mask_does_not_depend_on_what_it_was_asked_before(
    grammars: Grammars, seed: int, lengths: list[int]
) -> None:
    constraint = Constraint("json_schema", compact(random_schema(seed)))
    used = grammars.mask(constraint, ENDS)
    answer = write(grammars.mask(constraint, ENDS), seed, PLAIN, 1.0, 12).tokens[len(PROMPT) :]
    for length in lengths:
        for beginning in (answer[:length], [*answer[:length], length]):
            fresh = grammars.mask(constraint, ENDS)
            banned, expected = used.banned(beginning), fresh.banned(beginning)
            assert (banned is None) == (expected is None)
            assert banned is None or torch.equal(banned, expected)
            assert used.forced(beginning) == fresh.forced(beginning)
            if expected is not None:
                assert used.ends(beginning) == fresh.ends(beginning)


def test_what_is_forced_is_drafted_for_nothing(grammars: Grammars) -> None:
    mask = grammars.mask(schema(PERSON), ENDS)
    assert TOKENIZER.decode(mask.forced(ids('{"na'))).startswith('me"')
    assert mask.forced(ids('{"name": "')) == []
    assert mask.ends(ids('{"name": "x", "age": 1}'))
    assert not mask.ends(ids('{"name": "x", "age": 1'))


def test_json_may_be_indented_but_not_blank_for_ever(grammars: Grammars) -> None:
    mask = grammars.mask(schema(PERSON), ENDS)
    indented = json.dumps({"name": "x", "age": 1}, indent=4)
    assert mask.ends(ids(indented))
    assert mask.banned(ids('{"name": "x",\n')) is not None
    assert mask.banned(ids('{"name": "x",\n\n')) is None


def test_an_object_has_no_properties_but_those_of_its_schema(grammars: Grammars) -> None:
    listed = {"properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    comma = ids(",")[0]
    for more, is_closed in (({}, True), ({"additionalProperties": True}, False)):
        mask = grammars.mask(schema({"type": "object", **listed, **more}), ENDS)
        banned = mask.banned(ids('{"a":true'))
        assert banned is not None
        assert bool(banned[comma]) is is_closed


def test_an_integer_comes_to_an_end(grammars: Grammars) -> None:
    widest = {"minimum": -(1 << 63), "maximum": (1 << 63) - 1}  # of other languages' integers
    for bounds in ({}, widest):
        mask = grammars.mask(schema({"type": "integer", **bounds}), ENDS)
        assert mask.banned(ids(str((1 << 63) - 1024))) is not None
        assert mask.banned(ids("1" * 20)) is None


def test_an_answer_that_is_not_allowed_is_not_masked(grammars: Grammars) -> None:
    mask = grammars.mask(schema(PERSON), ENDS)
    assert mask.banned(ids("[")) is None
    assert mask.forced(ids("[")) == []
    with pytest.raises(ConstraintFailed):
        mask.ends(ids("["))


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        (Constraint("regex", r"[ab]{3}-\d"), r"[ab]{3}-\d"),
        (Constraint("choice", '["yes", "no \\"two\\""]'), r'yes|no "two"'),
        (Constraint("grammar", 'start: "<" /[a-z]{2}/ ">"'), "<[a-z]{2}>"),
    ],
    ids=lambda each: each.kind if isinstance(each, Constraint) else "",
)
def test_other_languages(grammars: Grammars, constraint: Constraint, pattern: str) -> None:
    for salt in range(8):
        decoder = write(grammars.mask(constraint, ENDS), salt, AHEAD, 1.0, 30)
        assert decoder.finish_reason == "stop"
        assert re.fullmatch(pattern, text_of(decoder))


def test_a_model_without_an_end_ends_where_nothing_may_follow(grammars: Grammars) -> None:
    mask = grammars.mask(Constraint("regex", "abc"), frozenset())
    decoder = write(mask, 1, AHEAD, 0.0, 20)
    assert (text_of(decoder), decoder.finish_reason) == ("abc", "stop")


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("json_schema", '{"type": "foo"}', "Invalid type: foo"),
        ("json_schema", '{"not": {"const": 1}}', "not"),
        ("json_schema", '{"$ref": "http://example.org/a"}', "example.org"),
        ("json_schema", '{"type"', "JSON"),
        ("json_schema", "3", "a JSON object"),
        ("json_schema", "[" * 100_000, "JSON"),
        ("json_schema", '{"items":' * 500 + "{}" + "}" * 500, "one that can be read"),
        ("regex", "a(b", "unclosed group"),
        ("grammar", "start: foo", "unknown name"),
        ("choice", "[]", "1 to 1024 strings"),
        ("choice", '["a", 3]', "1 to 1024 strings"),
        ("regex", "a" * (MAX_CHARS + 1), "characters"),
        ("regex", "", "characters"),
        ("poem", "a", "one of json_schema, regex"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_the_part(
    grammars: Grammars, kind, text: str, why: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(why)):
        grammars.mask(Constraint(kind, text), ENDS)


def test_a_tokenizer_of_an_unusual_kind_is_refused() -> None:
    with pytest.raises(RequestError, match="tokenizer cannot be constrained"):
        Grammars(word_pieces(), 40).mask(json_object(), frozenset())


def test_any_object_is_one(grammars: Grammars) -> None:
    mask = grammars.mask(json_object(), ENDS)
    assert mask.ends(ids('{"a": [1, {"b": null}]}'))
    banned = mask.banned([])
    assert banned is not None
    assert banned[ids("[")[0]]
    assert not banned[ids("{")[0]]
    assert banned[-SPARE:].all()
