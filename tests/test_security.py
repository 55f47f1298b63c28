"""Each line of the threat model in docs/security.md has a test, and each mark has a line."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"
LINE = re.compile(r"^\| ([a-z-]+) \| .+ \| (prevented|detected|limited) \|", re.MULTILINE)
MARK = re.compile(
    r'mark\.threat\("([a-z-]+)"\)\n((?:@.+\n(?:    .*\n|\)\n)*)*)(?:async )?def (\w+)', re.MULTILINE
)


def lines() -> list[str]:
    return [name for name, _ in LINE.findall(PAGE.read_text())]


def marked() -> dict[str, list[str]]:
    """Return the names of attacks, and where their tests are."""
    found: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for name in re.findall(r'threat\("([a-z-]+)"\)', file.read_text()):
            found.setdefault(name, []).append(file.name)
    return found


def test_the_page_has_lines() -> None:
    assert len(lines()) == len(set(lines())) > 30


@pytest.mark.parametrize("name", lines())
def test_every_attack_has_a_test(name: str) -> None:
    assert marked().get(name)


def test_every_mark_is_a_line() -> None:
    assert set(marked()) - set(lines()) == {"name"} - {"name"}
