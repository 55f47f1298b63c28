"""Chat templates: from messages, tools and variables to the prompt that a model reads.

A template is a Jinja program that comes with the tokenizer. transformers runs it in a sandbox.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarm.client.control_tokens import BREAK, TooManyControlTokens, control_tokens
from swarm.errors import NoChatTemplate, TemplateRefuses

ENDING_CHARS = 256  # of a prompt's end that is kept as text
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# names of `apply_chat_template` itself, and of what it gives every template
RESERVED = frozenset(
    {
        *("conversation", "messages", "tools", "documents", "chat_template"),
        *("add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "sanitize_control_tokens", "processor_kwargs", "self", "kwargs"),
        *("bos_token", "eos_token", "raise_exception", "strftime_now"),
    }
)

Fields = dict[str, Any]


@dataclass(frozen=True)
class Rendering:
    """What a template is given beside the messages.

    Attributes:
        tools: functions as JSON schemas, in OpenAI's form.
        variables: by name, for templates that have such: ``enable_thinking``.
        continues: the last message is one of the assistant's, and the answer goes on from its end.
        opening: text that the answer is made to begin with.
        thoughts: the tags of thoughts.
        without_thoughts: thoughts that the template begins are ended at once.
    """

    tools: Sequence[Fields] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    opening: str = ""
    thoughts: tuple[str, str] | None = None
    without_thoughts: bool = False


PLAIN = Rendering()


@dataclass(frozen=True)
class ChatPrompt:
    """A prompt: its token ids, and the end of its text if it is a rendered chat."""

    ids: list[int]
    ending: str = ""


class ChatTemplate:
    """The chat template of a transformers tokenizer. Any thread may use it.

    Raise `NoChatTemplate`.

    Args:
        model: its name, for messages.
        with_tools: whether tools will be given; some tokenizers have a template for that.
    """

    def __init__(self, tokenizer: Any, model: str, with_tools: bool = False) -> None:
        self.source = _source(tokenizer, with_tools)
        if not self.source:
            raise NoChatTemplate(model)
        self._tokenizer = tokenizer
        self._model = model
        self._control = control_tokens(tokenizer, self.source)

    def mentions(self, name: str) -> bool:
        """Tell whether the template has a word, such as the name of a variable."""
        return re.search(rf"\b{re.escape(name)}\b", self.source) is not None

    def takes(self, variable: str) -> bool:
        """Tell whether a caller may set this variable, and the template reads it."""
        return (
            NAME.fullmatch(variable) is not None
            and variable not in RESERVED
            and self.mentions(variable)
        )

    def render(self, messages: Sequence[Mapping[str, Any]], given: Rendering = PLAIN) -> ChatPrompt:
        """Return the prompt, which ends where the answer begins.

        Control tokens in messages, tools and variables are text: only the template writes real
        ones. Variables that the template does not take have no effect.

        Raises:
            TemplateRefuses: if the template refuses these messages.
            TooManyControlTokens.
        """
        text = self.text(messages, given)
        return ChatPrompt(self._control.encode(text), text.replace(BREAK, "")[-ENDING_CHARS:])

    def text(self, messages: Sequence[Mapping[str, Any]], given: Rendering = PLAIN) -> str:
        """Return the prompt as text, with a BREAK in what are no control tokens.

        Raises what `render` raises.
        """
        options = {
            **{
                name: self._escaped(value, "user")
                for name, value in given.variables.items()
                if self.takes(name)
            },
            "tools": self._escaped(list(given.tools), "user") or None,
            "add_generation_prompt": not given.continues,
            "continue_final_message": given.continues,
            "tokenize": False,
        }
        failure: Exception | None = None
        for form in FORMS:
            try:
                chat = [self._message(message, form) for message in messages]
                text = str(self._tokenizer.apply_chat_template(chat, **options))
                return text + _opening(given, text)
            except TooManyControlTokens:  # a bound of ours, not of the template
                raise
            except Exception as error:  # a program of the model's may raise anything
                failure = failure or error
                if not any(message.get("tool_calls") for message in messages):
                    break
        why = " ".join(str(failure).split()) or type(failure).__name__
        raise TemplateRefuses(self._model, why) from failure

    def _message(self, message: Mapping[str, Any], form: "Callable[[Fields], Fields]") -> Fields:
        """Return a message as the template reads it."""
        fields = dict(message)
        role = fields["role"]
        if role == "developer" and not self.mentions("developer"):
            role = "system"
        if fields.get("tool_calls"):
            fields["tool_calls"] = [form(call) for call in fields["tool_calls"]]
            if not fields["content"] and "content'] is none" in self.source:
                fields["content"] = None  # how DeepSeek's templates know calls
        if "reasoning_content" in fields and not self.mentions("reasoning_content"):
            fields |= _thoughts(fields.pop("reasoning_content"), self)
        return {**self._escaped(fields, role), "role": role}

    def _escaped(self, value: Any, role: str) -> Any:
        """Return a value whose texts hold no control tokens, in keys and in values."""
        if isinstance(value, str):
            return self._control.broken(value, role)
        if isinstance(value, Mapping):
            return {
                self._control.broken(str(key), role): self._escaped(inner, role)
                for key, inner in value.items()
            }
        if isinstance(value, Sequence):
            return [self._escaped(inner, role) for inner in value]
        return value


def _opening(given: Rendering, text: str) -> str:
    """Return what is added to a rendered chat, which may end with the beginning of thoughts."""
    if not given.without_thoughts or given.thoughts is None:
        return given.opening
    begin, end = given.thoughts
    return f"{end}\n\n{given.opening}" if text.rstrip().endswith(begin) else given.opening


def _thoughts(text: str, template: ChatTemplate) -> Fields:
    """Return a message's thoughts under the name that the template has for them, if any."""
    names = ("reasoning", "thinking", "thought")
    name = next((each for each in names if _reads(template.source, each)), None)
    return {name: text} if name else {}


def _reads(source: str, name: str) -> bool:
    """Tell whether a template reads a field of messages."""
    return re.search(rf"""\.{name}\b|\[['"]{name}['"]\]""", source) is not None


def _with_object(call: Fields) -> Fields:
    """Return a call whose arguments are an object, as most templates expect."""
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _with_text(call: Fields) -> Fields:
    """Return a call whose arguments are JSON, as templates of DeepSeek expect."""
    return call


FORMS: tuple[Callable[[Fields], Fields], ...] = (_with_object, _with_text)


def _source(tokenizer: Any, with_tools: bool) -> str:
    """Return the source of the template for chats, perhaps with tools; empty if there is none."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # by name, for several purposes
        tools = template.get("tool_use") if with_tools else None
        template = tools or template.get("default")
    return template or ""


def unknown_to(template: ChatTemplate, names: Collection[str]) -> Iterator[str]:
    """Yield the variables that a template does not take."""
    yield from (name for name in names if not template.takes(name))
