"""Hand several options of a command to its function as one object."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

Command = Callable[..., Any]


def grouped(kind: type, name: str) -> Callable[[Command], Command]:
    """Decorate a command: its options that are named as fields of ``kind`` become one argument.

    Args:
        kind: a dataclass.
        name: of the argument that takes its place.
    """
    names = [field.name for field in fields(kind)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_object(*arguments: Any, **values: Any) -> Any:
            values[name] = kind(**{each: values.pop(each) for each in names})
            return command(*arguments, **values)

        return with_object

    return decorate


def option_group(kind: type, name: str, *options: Command) -> Callable[[Command], Command]:
    """Decorate a command with options that several commands share, as one argument.

    Args:
        kind: a dataclass, whose fields have the names of the options.
        name: of the argument.
        options: their decorators, in the order of the help.
    """

    def decorate(command: Command) -> Command:
        decorated = grouped(kind, name)(command)
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
