"""The generated parts of the documentation are up to date."""

from pathlib import Path

import pytest

from docs import supported
from docs.markdown import PAGES, title
from docs.written import ARCHITECTURES, VECTORS, text_of_vectors

HOW = "run `python -m tests.docs`"


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    """The table of architectures is, too: see `tests/model/test_every_architecture.py`."""
    assert VECTORS.read_text("utf-8") == text_of_vectors(), HOW


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_page_says_as_many_architectures_as_there_are(page: Path) -> None:
    served = supported.count(ARCHITECTURES.read_text("utf-8"))
    assert page.read_text("utf-8") == supported.with_count(page.read_text("utf-8"), served), HOW
