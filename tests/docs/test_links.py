"""The links of all pages lead somewhere."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs.markdown import PAGES, ROOT, anchors, links, title


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = [f"{link}: {why}" for link in links(page) if (why := _wrong(page, link))]
    assert wrong == []


def test_every_picture_of_a_page_is_shown_and_has_a_script_that_takes_it() -> None:
    script = (ROOT / "tests" / "lab" / "pictures.py").read_text("utf-8")
    shown = "".join(page.read_text("utf-8") for page in PAGES)
    for picture in (ROOT / "docs" / "images").iterdir():
        assert f'"{picture.name}"' in script
        assert f"images/{picture.name}" in shown


def _wrong(page: Path, link: str) -> str:
    """Return what is wrong with a link, "" if nothing is.

    Links to other sites are not followed: tests need no network.
    """
    where = urlsplit(link)
    if where.scheme or where.netloc:
        good = where.scheme in ("http", "https", "mailto") and (
            where.scheme == "mailto" or "." in where.netloc
        )
        return "" if good and " " not in link else "it is not well-formed"
    target = (page.parent / unquote(where.path)).resolve() if where.path else page
    if not target.exists():
        return "there is no such file"
    if not target.is_relative_to(ROOT):
        return "it leads out of the project"
    if where.fragment and target.suffix == ".md" and where.fragment not in anchors(target):
        return "there is no such heading"
    return ""
