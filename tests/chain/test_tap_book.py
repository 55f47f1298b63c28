"""What peers tell of one token is put together, in whatever order it comes."""

import pytest
import torch

from swarm.chain import tap_book
from swarm.chain.tap_book import TapBook
from swarm.wire.taps import TapTerms

TERMS = TapTerms(layers=(1, 4, 6))


def outputs(serials: list[int], *layers: int) -> torch.Tensor:
    """Return rows whose values say which serial and layer they belong to."""
    return torch.tensor([[[10.0 * serial + layer] for layer in layers] for serial in serials])


def test_a_token_is_whole_when_all_its_layers_are_told() -> None:
    book = TapBook()
    book.add(5, (4, 6), outputs([5, 6], 4, 6))
    assert book.take_whole(TERMS) == ()
    book.add(6, (1,), outputs([6, 7], 1))
    (whole,) = book.take_whole(TERMS)
    assert (whole.serial, whole.outputs.flatten().tolist()) == (6, [61.0, 64.0, 66.0])
    assert book.take_whole(TERMS) == ()
    book.add(5, (1,), outputs([5], 1))
    assert [each.serial for each in book.take_whole(TERMS)] == [5]


def test_without_terms_and_after_clear_there_is_nothing() -> None:
    book = TapBook()
    book.add(5, (1, 4, 6), outputs([5], 1, 4, 6))
    assert book.take_whole(None) == ()
    book.clear()
    assert book.take_whole(TERMS) == ()


def test_what_is_never_completed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_book, "MAX_TOKENS", 3)
    book = TapBook()
    book.add(1, (1, 4), outputs([1, 2, 3, 4, 5], 1, 4))
    book.add(3, (6,), outputs([3, 4], 6))
    book.add(1, (6,), outputs([1, 2], 6))  # which begins anew for these two, and displaces others
    assert [each.serial for each in book.take_whole(TERMS)] == []
    book.add(6, (1, 4, 6), outputs([6], 1, 4, 6))
    assert [each.serial for each in book.take_whole(TERMS)] == [6]


def test_the_bytes_of_what_waits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_book, "MAX_BYTES", 6 * 4)
    book = TapBook()
    book.add(1, (1,), outputs([1, 2, 3], 1))
    book.add(2, (1, 4, 6), outputs([2, 3], 1, 4, 6))  # displaces the first
    assert [each.serial for each in book.take_whole(TERMS)] == [2, 3]
    book.add(4, (1, 4, 6), outputs([4, 5], 1, 4, 6))  # there is room again
    assert [each.serial for each in book.take_whole(TERMS)] == [4, 5]


def test_a_token_that_waits_keeps_its_own_outputs_alone() -> None:
    book = TapBook()
    told = outputs([5, 6, 7, 8], 1, 4)
    book.add(5, (1, 4), told)
    kept = [row for of_token in book._told.values() for row in of_token.values()]
    assert all(row.untyped_storage().nbytes() < told.untyped_storage().nbytes() for row in kept)
