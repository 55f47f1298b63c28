"""What an answer consists of, in order: the stream behind every protocol of the gateway."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A piece of the text that the reader sees."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call of a tool begins.

    Attributes:
        id: that the model gave the call, or empty.
    """

    name: str
    id: str = ""


@dataclass(frozen=True)
class CallArguments:
    """A piece of the arguments of the call that began last: all of them, joined, are JSON.

    The JSON is the model's own, and may be broken.
    """

    text: str


Event = Text | Reasoning | CallBegun | CallArguments
