"""Every model type that transformers knows is served right, or refused, as the table says."""

import pytest
from docs.supported import row, rows_of
from docs.written import ARCHITECTURES

from helpers.all_types import CASES
from helpers.sweep import serve

HOW = "if that is as it should be, run `python -m tests.docs`"


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    return rows_of(ARCHITECTURES.read_text("utf-8"))


def test_the_table_has_these_rows(table: dict[str, str]) -> None:
    assert list(table) == list(CASES), HOW


@pytest.mark.parametrize("name", CASES)
def test_a_model_type_is_served_as_the_table_says(name: str, table: dict[str, str]) -> None:
    case = CASES[name]
    assert row(case, serve(case)) == table.get(name), HOW
