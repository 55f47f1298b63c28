"""The layout that a reader relies on: short files, one thing for each name, docstrings that explain
what is there, and tests where a reader looks for them."""

import ast
from collections import Counter
from pathlib import Path

from helpers.docstrings import Program

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 400
# Where code decides, a test file stands at the mirrored place with the module's name.
MIRRORED = (
    "swarm/audit",
    "swarm/chain",
    "swarm/decoding",
    "swarm/network/links",
    "swarm/routing",
    "swarm/util",
    "swarm/wire",
    "peers/sessions",
)
DECISIONS = (
    ast.BoolOp,
    ast.Compare,
    ast.For,
    ast.If,
    ast.IfExp,
    ast.Match,
    ast.Try,
    ast.While,
    ast.comprehension,
)
TESTED_BY = {
    "swarm/audit/replay.py": "audit/test_evidence.py",
    "swarm/audit/sequential.py": "audit/test_ledger.py",
    "swarm/decoding/constraint.py": "client/test_grammar.py",
    "swarm/decoding/drafting/choices.py": "decoding/drafting/test_model.py",
    "swarm/decoding/drafting/lawful.py": "decoding/test_mask.py",
    "swarm/decoding/rules/chance.py": "decoding/rules/test_comparisons.py",
    "swarm/decoding/rules/lenient.py": "decoding/rules/test_comparisons.py",
    "swarm/decoding/rules/near_tie.py": "decoding/rules/test_comparisons.py",
    "swarm/decoding/rules/settings.py": "decoding/rules/test_choose.py",
    "swarm/decoding/rules/typical.py": "decoding/rules/test_comparisons.py",
    "swarm/network/links/dialer.py": "network/links/test_handshake.py",
    "swarm/wire/faults.py": "test_errors.py",
}


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


def decides(path: Path) -> bool:
    """Whether a module compares, branches or repeats anything."""
    return any(isinstance(node, DECISIONS) for node in ast.walk(ast.parse(path.read_text("utf-8"))))


def test_every_module_that_decides_has_a_test_file_of_its_name() -> None:
    missing = set()
    for path in (path for folder in MIRRORED for path in (ROOT / folder).rglob("*.py")):
        module = path.relative_to(ROOT)
        mirrored = (module if module.parts[0] == "peers" else module.relative_to("swarm")).parent
        test = ROOT / "tests" / mirrored / f"test_{path.name}"
        if decides(path) and not test.exists():
            missing.add(module.as_posix())
    assert missing == set(TESTED_BY)


def test_the_other_tests_are_there() -> None:
    assert [name for name in TESTED_BY.values() if not (ROOT / "tests" / name).exists()] == []
