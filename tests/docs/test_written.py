"""The generated parts of the documentation are up to date."""

import re
from pathlib import Path

import pytest

from docs import supported
from docs.markdown import PAGES, title
from docs.written import ARCHITECTURES, VECTORS, written

HOW = "run `python -m tests.docs`"


@pytest.fixture(scope="module")
def due() -> dict[Path, str]:
    return written()


@pytest.mark.parametrize("path", [VECTORS, ARCHITECTURES], ids=lambda path: path.name)
def test_what_is_made_from_the_code_is_up_to_date(due: dict[Path, str], path: Path) -> None:
    assert path.read_text("utf-8") == due[path], HOW


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_page_says_as_many_architectures_as_there_are(page: Path) -> None:
    served = supported.count(ARCHITECTURES.read_text("utf-8"))
    for said in re.findall(
        r"(\d+)\s+(?:Hugging\s+Face\s+)?(?:decoder\s+)?architectures", page.read_text("utf-8")
    ):
        assert int(said) == served
