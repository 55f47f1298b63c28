"""Which form a model's answers have, by the text of its chat template."""

from collections.abc import Callable
from dataclasses import dataclass

from swarm.dialogue.events import Reasoning, Text
from swarm.dialogue.families import deepseek, glm, harmony, hermes, invoke, kimi, llama, mistral
from swarm.dialogue.families import qwen_xml as qwen
from swarm.dialogue.reader import Parsing, Reader
from swarm.dialogue.tools import Tools


@dataclass(frozen=True)
class Behind:
    """A place in an answer: behind a marker, before which a regular expression matches."""

    marker: str
    before: str = ""


# Where an answer in channels tells what the reader sees, and where it calls.
CHANNEL_ANSWER = Behind(harmony.MESSAGE, harmony.ANSWER)
CHANNEL_CALL = Behind(harmony.MESSAGE, harmony.ANY_CALL)


@dataclass(frozen=True)
class ToolFormat:
    """How calls of tools are written.

    Attributes:
        signs: texts of which a chat template has one if its model writes calls so.
        parse: reads an answer.
        markers: special tokens that the parser has to see.
        opening: with which a call of some tool begins; empty if that needs its name.
        object_key: behind an opening, a call is a JSON object with ``name`` and this key; empty if
            it is none.
        named: with which a call begins whose name, ``{name}``, is given.
        named_json: whether the arguments follow as JSON behind ``named``.
        begins: with which any call begins in the midst of an answer; empty if nothing tells it.
        json_behind: markers behind which JSON follows: calls as objects if there is an
            `object_key`, else arguments. With each is what stands before it, as a regular
            expression with the function's ``{name}``.
        short_ids: the template wants ids of nine letters and digits.
    """

    name: str
    signs: tuple[str, ...]
    parse: Callable[[Reader, Tools], Parsing[None]]
    markers: tuple[str, ...] = ()
    opening: str = ""
    object_key: str = ""
    named: str = ""
    named_json: bool = False
    begins: str = ""
    json_behind: tuple[Behind, ...] = ()
    short_ids: bool = False

    @property
    def has_channels(self) -> bool:
        """Whether thoughts are part of the format."""
        return self.parse is harmony.harmony

    @property
    def lists_calls(self) -> bool:
        """Whether calls as objects are written as a list."""
        return self.opening.endswith("[")


HERMES = ToolFormat(
    "hermes",
    (hermes.OPEN,),
    hermes.hermes,
    (hermes.OPEN, hermes.CLOSE),
    opening="<tool_call>\n",
    object_key="arguments",
    begins=hermes.OPEN,
    json_behind=(Behind(hermes.OPEN),),
)
# The first one of which the template has a sign is taken: later signs are parts of earlier forms.
FORMATS = (
    ToolFormat(
        "harmony",
        (harmony.CHANNEL,),
        harmony.harmony,
        harmony.MARKERS,
        named="<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>",
        named_json=True,
        json_behind=(Behind(harmony.MESSAGE, harmony.CALL_OF),),
    ),
    ToolFormat(
        "kimi",
        (kimi.SECTION,),
        kimi.kimi,
        kimi.MARKERS,
        named=f"{kimi.SECTION}{kimi.CALL}functions.{{name}}:0{kimi.ARGUMENTS}",
        named_json=True,
        begins=kimi.SECTION,
        json_behind=(Behind(kimi.ARGUMENTS, kimi.CALL_OF),),
    ),
    ToolFormat("deepseek_tags", (invoke.DSML,), invoke.deepseek_tags, begins=invoke.DEEPSEEK.open),
    ToolFormat(
        "deepseek",
        (deepseek.CALLS,),
        deepseek.deepseek,
        deepseek.MARKERS,
        opening=deepseek.CALLS + deepseek.CALL,
        begins=deepseek.CALLS,
        json_behind=(
            Behind(deepseek.SEPARATOR, deepseek.CALL_OF),
            Behind(deepseek.FENCE, deepseek.FENCED_CALL_OF),
        ),
    ),
    ToolFormat(
        "minimax",
        (invoke.MINIMAX.open,),
        invoke.minimax,
        (invoke.MINIMAX.open, invoke.MINIMAX.close),
        opening='<minimax:tool_call>\n<invoke name="',
        named='<minimax:tool_call>\n<invoke name="{name}">\n',
        begins=invoke.MINIMAX.open,
    ),
    ToolFormat(
        "mistral_args",
        (mistral.ARGUMENTS,),
        mistral.mistral,
        (mistral.CALLS, mistral.ARGUMENTS, mistral.ID),
        opening=mistral.CALLS,
        named=f"{mistral.CALLS}{{name}}{mistral.ARGUMENTS}",
        named_json=True,
        begins=mistral.CALLS,
        json_behind=(Behind(mistral.ARGUMENTS, mistral.CALL_OF),),
        short_ids=True,
    ),
    ToolFormat(
        "mistral",
        (mistral.CALLS,),
        mistral.mistral,
        (mistral.CALLS, mistral.ARGUMENTS, mistral.ID),
        opening=f"{mistral.CALLS}[",
        object_key="arguments",
        begins=mistral.CALLS,
        json_behind=(Behind(mistral.CALLS),),
        short_ids=True,
    ),
    ToolFormat(
        "glm",
        (glm.KEY,),
        glm.glm,
        (glm.OPEN, glm.CLOSE),
        opening="<tool_call>",
        named="<tool_call>{name}\n",
        begins=glm.OPEN,
    ),
    ToolFormat(
        "qwen_xml",
        (qwen.FUNCTION,),
        qwen.qwen_xml,
        (qwen.OPEN, qwen.CLOSE),
        opening="<tool_call>\n<function=",
        named="<tool_call>\n<function={name}>\n",
        begins=qwen.OPEN,
    ),
    ToolFormat(
        "granite",
        (hermes.GRANITE,),
        hermes.granite,
        (hermes.GRANITE,),
        opening="<|tool_call|>[",
        object_key="arguments",
        begins=hermes.GRANITE,
        json_behind=(Behind(hermes.GRANITE),),
    ),
    HERMES,
    ToolFormat(
        "llama",
        (llama.TAG, '"parameters"'),
        llama.llama,
        (llama.TAG,),
        object_key="parameters",
        begins=llama.TAG,
    ),
)
BY_NAME = {each.name: each for each in FORMATS}

# The tags of thoughts, and of their end.
THOUGHTS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


def tool_format(template: str) -> ToolFormat:
    """Return the form in which a model with this chat template writes calls.

    A template without any sign leaves it to our words (`swarm.dialogue.in_words`): Hermes.
    """
    for each in FORMATS:
        if any(sign in template for sign in each.signs):
            return each
    return HERMES


def thought_tags(template: str) -> tuple[str, str] | None:
    """Return the tags of thoughts that a chat template knows, if any."""
    return next((tags for tags in THOUGHTS if tags[1] in template or tags[0] in template), None)


def thoughts(read: Reader, tags: tuple[str, str], begun: bool) -> Parsing[None]:
    """Read the thoughts at the beginning of an answer, if there are any.

    Args:
        begun: the prompt has opened them.
    """
    opening, closing = tags
    space = yield from read.skip()
    opened = yield from read.accept(opening)  # some models repeat what the prompt has opened
    if not opened and not begun:
        if space:
            yield Text(space)
        return
    yield from read.until((closing,), Reasoning)
