"""The layout that a reader relies on: short files, and one thing for each name."""

import ast
from collections import Counter
from pathlib import Path

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
