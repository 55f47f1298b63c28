"""Where the arguments of strict functions begin in an answer, and what they may be."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from swarm.decoding.outline import Trigger
from swarm.dialogue.formats import ToolFormat
from swarm.dialogue.outlines import trigger_of
from swarm.gateway.forced_calls import arguments_schema, calls_schema

Function = Mapping[str, Any]


def strict_calls(
    functions: Sequence[Function], strict: Collection[str], form: ToolFormat
) -> tuple[Trigger, ...]:
    """Return where the arguments of strict functions begin, and what they have to look like.

    None are returned where a model does not write arguments as JSON behind a marker.

    Args:
        functions: all that may be called, in OpenAI's form.
        strict: the names of strict ones.
    """
    if not strict or not form.json_behind:
        return ()
    if form.object_key:
        known = [each if each["name"] in strict else {"name": each["name"]} for each in functions]
        calls = calls_schema(known, form.object_key, form.lists_calls)
        return tuple(trigger_of(behind, calls) for behind in form.json_behind)
    return tuple(
        trigger_of(behind, arguments_schema(function), function["name"])
        for function in functions
        if function["name"] in strict
        for behind in form.json_behind
    )
