"""What a user may ask about where a client computes."""

import pytest

from swarm.errors import ConfigError
from swarm.model.compute import ComputeOptions, draft_vocab_of


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "gpu"),
        ("device", "cuda:"),
        ("draft_device", "cuda:-1"),
        ("draft_device", "cpu\n"),
        ("draft_dtype", "int4"),
        ("draft_vocab", "some"),
        ("draft_vocab", "2000"),
        ("draft_vocab", 1023),
        ("draft_vocab", True),
        ("draft_vocab", 2e4),
    ],
)
def test_what_is_malformed_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        ComputeOptions(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"), [("auto", "auto"), ("all", "all"), ("1024", 1024), ("032768", 32768)]
)
def test_a_draft_vocabulary_is_a_word_or_a_number(written: str, meant: int | str) -> None:
    assert draft_vocab_of(written) == meant


@pytest.mark.parametrize(
    "written", ["", "1023", "-5", "9" * 5000, "\u0663\u0663\u0663\u0663", "ALL"]
)
def test_other_words_and_numbers_are_none(written: str) -> None:
    with pytest.raises(ConfigError, match="draft_vocab"):
        draft_vocab_of(written)


def test_a_draft_goes_where_the_head_goes_unless_it_is_asked_elsewhere() -> None:
    assert ComputeOptions().drafts_on == "auto"
    assert ComputeOptions(device="cuda:1").drafts_on == "cuda:1"
    assert ComputeOptions(device="cuda", draft_device="cpu").drafts_on == "cpu"
