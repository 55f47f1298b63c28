"""The settings of ``/set``: options of the next answers, read from words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from swarm.errors import UsageError
from swarm.request import Options, Request


@dataclass(eq=False)
class NoSuchSetting(UsageError):
    """A setting that does not exist, or an invalid value of one."""

    problem: str

    def __str__(self) -> str:
        return self.problem


def _auto(word: str) -> int | str:
    return word if word == "auto" else int(word)


def _seed(word: str) -> int | None:
    return None if word == "none" else int(word)


def _switch(word: str) -> bool:
    return {"on": True, "off": False}[word]


def _lookup(word: str) -> bool | None:
    return None if word == "auto" else _switch(word)


SETTINGS: Mapping[str, Callable[[str], Any]] = {
    "temperature": float,
    "top-p": float,
    "top-k": int,
    "min-p": float,
    "max-new-tokens": int,
    "repetition-penalty": float,
    "presence-penalty": float,
    "frequency-penalty": float,
    "seed": _seed,
    "verify": str,
    "window": _auto,
    "depth": _auto,
    "branches": int,
    "lookup": _lookup,
    "learn": _switch,
    "standby": _switch,
    "patience": float,
}
KINDS = {
    float: "a number",
    int: "a whole number",
    _auto: "auto or a whole number",
    _seed: "none or a whole number",
    _switch: "on or off",
    _lookup: "auto, on or off",
}


def changed(options: Options, name: str, word: str) -> Options:
    """Return the options with one of them changed.

    Raise `NoSuchSetting` for an unknown name or a word of the wrong kind, and what `Request.of`
    raises for a value out of range.
    """
    if name not in SETTINGS:
        raise NoSuchSetting(f"there is no setting {name!r}; there are {', '.join(SETTINGS)}")
    read = SETTINGS[name]
    try:
        value = read(word)
    except (ValueError, KeyError):
        raise NoSuchSetting(f"{word!r} is no {name}; give {KINDS[read]}") from None
    new = cast(Options, {**options, _field(name): value})
    Request.of(new)
    return new


def listed(options: Options) -> str:
    """Return all settings and their values, one a line."""
    return "\n".join(f"  {name:<20}{_word(name, options.get(_field(name)))}" for name in SETTINGS)


def _field(name: str) -> str:
    return "patience_s" if name == "patience" else name.replace("-", "_")


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "auto" if name == "lookup" else "none"
    return f"{value}"
