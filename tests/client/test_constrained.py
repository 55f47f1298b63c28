"""Constrained texts over real peers: plain, drafted, without a head and after failures the same."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from tokenizers import decoders

from helpers.loopback import soon, tokenizer_of
from helpers.models import VOCAB
from helpers.strikes import killing
from helpers.swarm_in_process import NEW, STAGES, Material, Swarm, swarm_of
from swarm.audit.guard import Guard
from swarm.decoding.constraint import Constraint
from swarm.decoding.outline import Outline
from swarm.errors import RequestError

LETTERS = [chr(ord("!") + i) for i in range(VOCAB)]  # each a token
LANGUAGE = r"[a-z]{10}([0-9]+|[A-Z]+)"
CONSTRAINED = {"constraint": Constraint("regex", LANGUAGE), "temperature": 0.7, "seed": 5}


@pytest.fixture(scope="module")
def spelling(material: Material) -> Material:
    """Models with a tokenizer that spells its tokens one behind the other."""
    tokenizer = tokenizer_of(LETTERS)
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse()]
    )
    return replace(material, models=replace(material.models, tokenizer=tokenizer, guard=Guard()))


async def test_a_constrained_text_is_the_same_however_it_is_written(spelling: Material) -> None:
    async with swarm_of(lambda: Swarm(spelling), *STAGES, *STAGES) as swarm:
        plain = await soon(swarm.write(window=0, **CONSTRAINED))
        drafted = await soon(swarm.write(**CONSTRAINED))
        disturbed = await soon(swarm.write(killing(1), **CONSTRAINED))
    async with swarm_of(lambda: Swarm(spelling.without_head), *STAGES) as swarm:
        told = await soon(swarm.write(**CONSTRAINED))
    assert re.fullmatch(LANGUAGE, plain.text)
    assert plain.stats.new_tokens == NEW
    assert drafted.token_ids == disturbed.token_ids == told.token_ids == plain.token_ids
    assert drafted.stats.accepted_tokens > 0
    assert disturbed.stats.failovers


async def test_an_answer_behind_free_thoughts_is_the_same_however_it_is_written(
    spelling: Material,
) -> None:
    outline = Outline(Constraint("regex", "[0-9]{5}[a-z]+"), thoughts=("(", ")"), begun=True)
    closes = {LETTERS.index(")"): 2.0}
    asked = {"constraint": outline, "temperature": 0.7, "seed": 4, "logit_bias": closes}
    async with swarm_of(lambda: Swarm(spelling), *STAGES, *STAGES) as swarm:
        plain = await soon(swarm.write(window=0, **asked))
        drafted = await soon(swarm.write(**asked))
        disturbed = await soon(swarm.write(killing(1), **asked))
    thoughts, closed, answer = plain.text.partition(")")
    assert len(thoughts) > 2
    assert closed
    assert re.fullmatch("[0-9]{5}[a-z]*", answer)
    assert drafted.token_ids == disturbed.token_ids == plain.token_ids
    assert drafted.stats.accepted_tokens > 0
    assert disturbed.stats.failovers


async def test_a_constraint_that_cannot_be_compiled_opens_no_session(
    spelling: Material, make: Callable[[], Swarm]
) -> None:
    async with swarm_of(lambda: Swarm(spelling), *STAGES) as swarm:
        with pytest.raises(RequestError, match="unclosed group"):
            await soon(swarm.write(constraint=Constraint("regex", "a(b")))


async def test_an_answer_goes_on_until_it_is_long_enough(make: Callable[[], Swarm]) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        long = await soon(swarm.write())
        ends = [long.token_ids[2]]
        short = await soon(swarm.write(stop_token_ids=ends))
        held = await soon(swarm.write(stop_token_ids=ends, min_tokens=9))
        plain = await soon(swarm.write(stop_token_ids=ends, min_tokens=9, window=0))
    assert short.stats.new_tokens == 3
    assert not set(ends) & set(held.token_ids[:9])
    assert held.token_ids == plain.token_ids
