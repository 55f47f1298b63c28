"""What modules of ours import when they are imported, told without importing them."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("swarm", "peers")


def imported(module: str) -> set[str]:
    """Return the modules of ours that importing one imports, and the packages of others."""
    found, new = set[str](), {module}
    while new:
        found |= new
        new = {other for name in new if _is_ours(name) for other in _imports(name)} - found
    return found


def _imports(module: str) -> Iterator[str]:
    package, _, _ = module.rpartition(".")
    if package:
        yield package
    for name in _in_statements(ast.parse(_file(module).read_text()).body):
        if not _is_ours(name):
            yield name.partition(".")[0]
        elif _file(name).exists():  # otherwise an attribute
            yield name


def _in_statements(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """Leave out what functions import later, and what only type checkers read."""
    for statement in statements:
        match statement:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(str(module), names):
                yield module
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.If(ast.Name("TYPE_CHECKING")):
                pass
            case ast.If(body=body) | ast.Try(body=body) | ast.With(body=body):
                yield from _in_statements(body)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in OURS


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
