"""A text is the same whether its client chooses by bounds or by logits."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers.swarm_in_process import STAGES, Material, Swarm, swarm_of
from swarm.model.head import Head
from swarm.model.kernels.int8 import Plain


@pytest.fixture(scope="module")
def rounded(material: Material) -> Iterator[Head]:
    """The client's head, with an int8 copy."""
    head = material.models.head
    head.round(Plain)
    assert head.rounded is not None
    yield head
    head.rounded = None  # other modules share the head


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.2, "logit_bias": {7: 2.0}},
        {"temperature": 0.8, "seed": 6, "top_k": 9, "top_p": 0.8},
        {"window": 4, "depth": 1, "verify": "adaptive:tau=20,budget=1000,gap=1,agreement=0"},
        {"window": 4, "depth": 1, "verify": "random:rate=0.5", "temperature": 0.9, "seed": 7},
        {"verify": "rejection", "window": 4, "depth": 1, "temperature": 1.0, "seed": 8},
        {"logprobs": 3},
        {"hidden_states": True},
    ],
)
async def test_bounds_change_no_text(
    options: dict[str, Any],
    make: Callable[[], Swarm],
    rounded: Head,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with swarm_of(make, *STAGES) as swarm:
        # Without copies: how sure they are is learned from text to text.
        by_bounds = await swarm.write(lookup=False, **options)
        monkeypatch.setattr(rounded, "rounded", None)
        by_logits = await swarm.write(lookup=False, **options)
    assert by_bounds.token_ids == by_logits.token_ids
    for one, other in zip(by_bounds.pieces, by_logits.pieces, strict=True):
        if options.get("depth") == 1:  # else what is drafted in time differs
            assert (one.origin, one.choice_id, one.reason) == (
                other.origin,
                other.choice_id,
                other.reason,
            )
            assert one.deficit_nats == pytest.approx(other.deficit_nats, abs=1e-4)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert (one.hidden_state is None) == (other.hidden_state is None)
