"""Calls as JSON and as tagged arguments: what the formats of several families have in common."""

import json
from collections.abc import Collection

from swarm.dialogue.events import CallArguments, CallBegun, Text
from swarm.dialogue.reader import Parsing, Reader, gathered
from swarm.dialogue.tools import Tools

NAME_KEYS = ("name", "function", "tool_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args")
OBJECT = "{}"


def object_arguments(read: Reader) -> Parsing[None]:
    """Read a call's arguments, if they follow here as a JSON object; without, there are none."""
    if (yield from read.peek()) == "{":
        yield from read.value(CallArguments)
    else:
        yield CallArguments(OBJECT)


def json_calls(read: Reader, marker: str, names: Collection[str] | None = None) -> Parsing[bool]:
    """Read one call or a list of calls as JSON, which may follow here. Return whether one did.

    What is no call is text, with the marker before it.

    Args:
        names: of the tools, if calls of others are text.
    """
    read.mark()
    yield from read.skip()
    is_list = yield from read.accept("[")
    more, found = True, False
    while more:
        yield from read.skip()
        if (yield from read.peek()) != "{":
            break
        found = (yield from _json_call(read, names)) or found
        yield from read.skip()
        more = is_list and (yield from read.accept(","))
    if found:
        yield from read.accept("]" if is_list else "")
        read.since_mark()
    elif text := marker + read.since_mark():
        yield Text(text)
    return found


def _json_call(read: Reader, names: Collection[str] | None) -> Parsing[bool]:
    """Read one object with a name and arguments. Return whether it was one.

    The arguments are passed on as they come if the name is before them.
    """
    call = _JsonCall(names)
    yield from read.accept("{")
    try:
        while True:
            yield from read.skip()
            if (yield from read.accept("}")):
                break
            key = yield from read.json()
            yield from read.skip()
            if not isinstance(key, str) or not (yield from read.accept(":")):
                break
            yield from read.skip()
            yield from call.field(read, key)
            yield from read.skip()
            if not (yield from read.accept(",")):
                yield from read.accept("}")
                break
    except ValueError:  # what was read so far is all there is of it
        pass
    yield from call.end(read)
    return call.begun


class _JsonCall:
    """One call, as its fields are read."""

    def __init__(self, names: Collection[str] | None) -> None:
        self._names = names
        self._name = ""
        self._id = ""
        self._early = ""  # arguments that come before the name
        self._has_arguments = False
        self.begun = False

    def field(self, read: Reader, key: str) -> Parsing[None]:
        if key in ARGUMENT_KEYS and not self._has_arguments:
            self._has_arguments = True
            yield from self._arguments(read)
            return
        value = yield from read.json()
        if key in NAME_KEYS and isinstance(value, str):
            self._name = value
        elif key == "id" and isinstance(value, str):
            self._id = value

    def end(self, read: Reader) -> Parsing[None]:
        if not self.begun and self._early:
            yield from self._begin(read)
            if self.begun:
                yield CallArguments(self._early)
        elif not self.begun and self._names is None:  # only the name says that it is a call
            yield from self._begin(read)
            if self.begun:
                yield CallArguments(OBJECT)

    def _arguments(self, read: Reader) -> Parsing[None]:
        yield from self._begin(read)
        if (yield from read.peek()) == '"':  # JSON within a string of JSON
            value = yield from read.json()
            text = value if isinstance(value, str) and _is_object(value) else json.dumps(value)
        elif self.begun:
            yield from read.value(CallArguments)
            return
        else:
            text, _ = yield from gathered(read.value(str))
        if self.begun:
            yield CallArguments(text)
        else:
            self._early = text

    def _begin(self, read: Reader) -> Parsing[None]:
        if self._name and (self._names is None or self._name in self._names):
            self.begun = True
            read.since_mark()  # it will not become text
            yield CallBegun(self._name, self._id)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


class TaggedCall:
    """A call whose arguments come one by one, each as text between tags."""

    def __init__(self, name: str, tools: Tools) -> None:
        self._name = name.strip()
        self._tools = tools
        self._names: set[str] = set()

    def begin(self) -> CallBegun:
        return CallBegun(self._name)

    def argument(self, name: str, text: str) -> CallArguments | None:
        """Return the part of the JSON for one argument; None for one that is there already."""
        name = name.strip()
        if name in self._names:
            return None
        before = ", " if self._names else "{"
        self._names.add(name)
        value = self._tools.typed(self._name, name, text)
        return CallArguments(f"{before}{_json(name)}: {_json(value)}")

    def end(self) -> CallArguments:
        return CallArguments("}" if self._names else OBJECT)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
