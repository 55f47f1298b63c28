"""docs/architecture.md is a map of what is there: every room stands on it, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.markdown import ROOT, blocks, title

PAGE = ROOT / "docs" / "architecture.md"
NAME = re.compile(r"\w+(?:\.py|/)(?=\s|$)")
SHAPES = re.findall(r"\| `(\w+)`[\w ]* \|$", PAGE.read_text("utf-8"), re.MULTILINE)


def on_the_map() -> Iterator[Path]:
    """All files and folders that the tree of rooms names.

    A line names folders, or files; files behind the name of a folder lie in that folder.
    """
    tree = next(block.content for block in blocks(PAGE) if block.content.startswith("swarm/\n"))
    around = [(-1, ROOT)]  # the folders that a line lies in, with their indents
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        while around[-1][0] >= indent:
            around.pop()
        room = around[-1][1]
        folders = [name for name in NAME.findall(line) if name.endswith("/")]
        yield from (room / name for name in folders)
        if folders:
            room = room / folders[0]
            around.append((indent, room))
        yield from (room / name for name in NAME.findall(line) if name not in folders)


def rooms() -> Iterator[Path]:
    """The packages that a newcomer has to find."""
    for place in ("swarm", "swarm/network", "peers"):
        yield from (each.parent for each in (ROOT / place).glob("*/__init__.py"))


def test_the_map_names_what_is_there() -> None:
    named = list(on_the_map())
    assert len(named) > 80
    assert not [title(each) for each in named if not each.exists()]


def test_every_room_is_on_the_map() -> None:
    assert set(rooms()) <= set(on_the_map())


def test_a_token_has_a_shape_on_its_whole_way() -> None:
    assert len(SHAPES) == 11


@pytest.mark.parametrize("shape", sorted(set(SHAPES)))
def test_every_shape_on_the_way_of_a_token_is_a_class(shape: str) -> None:
    sources = (path.read_text("utf-8") for path in (ROOT / "swarm").rglob("*.py"))
    assert any(re.search(rf"^class {shape}\b", source, re.MULTILINE) for source in sources)
