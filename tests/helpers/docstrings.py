"""What docstrings explain and what is there to be explained, by the syntax alone."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef


class Program:
    """The functions and classes of some modules. Classes are known by their names, and have what
    their bases have."""

    def __init__(self, modules: Iterable[ast.Module]) -> None:
        nodes = [node for module in modules for node in ast.walk(module)]
        self._documented = [node for node in nodes if isinstance(node, Documented)]
        self._classes: defaultdict[str, list[ast.ClassDef]] = defaultdict(list)
        for node in self._documented:
            if isinstance(node, ast.ClassDef):
                self._classes[node.name].append(node)

    def explained_in_vain(self) -> Iterator[str]:
        """Yield what docstrings explain, and is not there."""
        for node in self._documented:
            text = ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                there = {"Args": self._of_class(node), "Attributes": self._attributes(node)}
            else:
                there = {"Args": self._parameters(node)}
            for section, names in there.items():
                for name in explained(text, section):
                    if name not in names:
                        yield f"{section} of {node.name}: {name}"

    def _parameters(self, node: Function) -> set[str]:
        args = node.args
        each = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        unpacked = self._named_in(args.kwarg) if args.kwarg else []
        return {arg.arg for arg in each if arg}.union(*map(self._of_class, unpacked))

    def _of_class(self, node: ast.ClassDef) -> set[str]:
        """Return the parameters of ``__init__``, and all fields: these may be its parameters."""
        parts = [part for each in self._family(node) for part in each.body]
        fields = {ast.unparse(part.target) for part in parts if isinstance(part, ast.AnnAssign)}
        functions = [part for part in parts if isinstance(part, ast.FunctionDef)]
        inits = [self._parameters(each) for each in functions if each.name == "__init__"]
        return fields.union(*inits)

    def _attributes(self, node: ast.ClassDef) -> set[str]:
        parts = [part for each in self._family(node) for part in ast.walk(each)]
        properties = {part.name for part in parts if isinstance(part, ast.FunctionDef)}
        stored = [part for part in parts if isinstance(getattr(part, "ctx", None), ast.Store)]
        return properties | {ast.unparse(part).removeprefix("self.") for part in stored}

    def _family(self, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
        yield node
        for base in node.bases:
            for parent in self._named_in(base):
                yield from self._family(parent)

    def _named_in(self, node: ast.AST) -> list[ast.ClassDef]:
        names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
        return [each for name in names for each in self._classes.get(name, [])]


def explained(docstring: str, section: str) -> list[str]:
    """Return the names that a section of a docstring explains."""
    _, _, rest = docstring.partition(f"{section}:\n")
    block = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    lines = re.findall(r"^    ([*\w]+(?:, [*\w]+)*):", block, re.MULTILINE)
    return [name.strip("*") for line in lines for name in line.split(", ")]
