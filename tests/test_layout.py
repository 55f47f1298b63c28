"""The layout that a reader relies on: short files, one thing for each name, and docstrings that
explain what is there."""

import ast
from collections import Counter
from pathlib import Path

from helpers.docstrings import Program

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 400


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(found) > 100
    return found


def test_no_file_is_long() -> None:
    lengths = {
        path: len(path.read_text("utf-8").splitlines())
        for path in sources("swarm", "peers", "tests")
    }
    assert [str(path) for path, lines in lengths.items() if lines > MOST_LINES] == []


def test_no_class_name_stands_on_two_things() -> None:
    names = Counter(
        node.name
        for path in sources("swarm", "peers")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_docstrings_explain_what_is_there() -> None:
    program = Program(ast.parse(path.read_text("utf-8")) for path in sources("swarm", "peers"))
    assert "\n".join(program.explained_in_vain()) == ""
