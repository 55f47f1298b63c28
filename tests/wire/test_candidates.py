"""The terms of a prediction, and candidates whose bytes fit what they say they are."""

import pytest
from pydantic import ValidationError

from swarm.wire.candidates import (
    ENTRY_BYTES,
    LEAST_CANDIDATES,
    MAX_CANDIDATES,
    MAX_SEED,
    MAX_WANTED,
    Candidates,
    HeadTerms,
)
from swarm.wire.fields import MAX_VOCABULARY


def candidates(*counts: int, **change: object) -> Candidates:
    """Return candidates of so many tokens a row."""
    fitting = {
        "counts": counts,
        "tokens": bytes(4 * sum(counts)),
        "logits": bytes(4 * sum(counts)),
        "log_sums": bytes(16 * len(counts)),
    }
    return Candidates.model_validate(fitting | change)


@pytest.mark.parametrize(
    ("count", "temperature", "plain", "scored"),
    [(8, 0.0, 8, 0), (8, 1.0, 6, 2), (11, 0.5, 9, 2), (256, 100, 192, 64)],
)
def test_a_quarter_is_chosen_with_noise_if_there_is_any(
    count: int, temperature: float, plain: int, scored: int
) -> None:
    terms = HeadTerms(count=count, temperature=temperature)
    assert (terms.plain, terms.scored) == (plain, scored)


def test_all_that_terms_may_ask_for_is_taken() -> None:
    wanted = bytes(ENTRY_BYTES * MAX_WANTED)
    HeadTerms(count=MAX_CANDIDATES, temperature=100, seed=MAX_SEED, wanted=wanted)
    HeadTerms(count=LEAST_CANDIDATES, temperature=0, seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {"count": LEAST_CANDIDATES - 1},
        {"count": MAX_CANDIDATES + 1},
        {"temperature": -0.1},
        {"temperature": 100.1},
        {"temperature": float("nan")},
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"wanted": bytes(ENTRY_BYTES * (MAX_WANTED + 1))},
        {"wanted": bytes(ENTRY_BYTES + 1)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_terms_are_bounded(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HeadTerms.model_validate({"count": 8, **change})


def test_rows_follow_each_other() -> None:
    assert candidates(8, 3).nbytes == 2 * 4 * 11 + 2 * 16
    assert candidates().nbytes == 0


def test_a_single_row_may_have_the_logits_of_all_tokens_without_ids() -> None:
    assert candidates(50, tokens=b"").nbytes == 4 * 50 + 16
    with pytest.raises(ValidationError, match="0 bytes of ids for 100 tokens"):
        candidates(50, 50, tokens=b"")
    with pytest.raises(ValidationError, match="40 bytes of ids for 50 tokens"):
        candidates(50, tokens=bytes(40))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"counts": (8, 4)}, "44 bytes of ids for 12 tokens"),
        ({"tokens": bytes(40)}, "40 bytes of ids for 11 tokens"),
        ({"logits": bytes(48)}, "48 bytes of logits for 11 tokens"),
        ({"log_sums": bytes(16)}, "16 bytes of sums for 2 rows"),
        ({"log_sums": bytes(48)}, "48 bytes of sums for 2 rows"),
        ({"counts": (11, 0)}, "greater than or equal to 1"),
        ({"counts": (MAX_VOCABULARY + 1,)}, "less than or equal to"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        candidates(8, 3, **change)
