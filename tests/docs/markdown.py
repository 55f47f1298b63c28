"""Parse pages of the documentation: titles, links, anchors, tables, and blocks of code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: of a fence, "" for an indented block.
        not_run: why it is not run, as the comment right before it says; "" if it is run.
    """

    page: Path
    line: int
    language: str
    content: str
    not_run: str

    def __str__(self) -> str:
        return f"{title(self.page)}:{self.line}"


def title(page: Path) -> str:
    """The title of the page."""
    return str(page.relative_to(ROOT))


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """Return all blocks of code, in order."""
    comment = ""
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            assert token.map
            why = NOT_RUN.search(comment)
            yield Block(
                page, token.map[0] + 1, token.info.strip(), token.content, why[1] if why else ""
            )
        comment = token.content if token.type == "html_block" else ""


def links(page: Path) -> Iterator[str]:
    """Return the targets of all links and pictures."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


def headings(page: Path) -> Iterator[str]:
    """Return the text of all headings."""
    for token, following in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "heading_open":
            yield _plain(following)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page: GitHub's for its headings, and those that it sets itself."""
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', page.read_text("utf-8")))
    for heading in headings(page):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        numbered = (slug if not number else f"{slug}-{number}" for number in range(len(found) + 1))
        found.add(next(each for each in numbered if each not in found))
    return found


def tables(page: Path) -> dict[str, list[list[str]]]:
    """Return the first table below each heading, as the text of its cells, without the head."""
    found: dict[str, list[list[str]]] = {}
    heading, rows, in_body = "", None, False
    for token, following in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "heading_open":
            heading = _plain(following)
        elif token.type == "table_open":
            rows = found.setdefault(heading, []) if heading not in found else []
        elif token.type in ("tbody_open", "tbody_close"):
            in_body = token.type == "tbody_open"
        elif token.type == "tr_open" and in_body and rows is not None:
            rows.append([])
        elif token.type == "td_open" and rows is not None:
            rows[-1].append(_plain(following))
    return found


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())
