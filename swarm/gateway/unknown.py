"""Fields that are no part of the interface: ignored and named, dropped, or refused.

Clients send fields of their own, and fields of other servers. One that does not change the text is
*ignored*, and its name is part of the reply. Fields of OpenAI's that have no effect here
(`DROPPED`) are not even named. Fields that would change the text in a way that we do not support
(`REFUSED`) are accepted only with values that change nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from swarm.gateway.errors import BadRequest

MAX_NAMES = 64  # of ignored fields that a reply names
MAX_NAME_CHARS = 100  # of each of them: a field's name may be any string
HEADER = "X-Swarm-Ignored"  # the names, separated by commas

# The names of known fields; those of objects inside them, or inside their lists.
Known = Mapping[str, "Known | None"]

DROPPED = frozenset(
    {
        *("user", "safety_identifier", "metadata", "store", "service_tier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
)
INSTEAD = "use top_p, top_k or min_p"
BEAMS = "one text is written at a time"
# values that change nothing, and what to do instead
REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "best_of": ((0, 1), "ask for several texts with n"),
    "top_logprobs": ((0,), "say how many with logprobs"),
    "echo": ((False,), "ask POST /v1/completions for it"),
    "suffix": (("",), "ask POST /v1/completions for the text between two others"),
    "functions": (([],), "only chats have tools"),
    "function_call": (("none", "auto"), "only chats have tools"),
    "grammar": (("",), "give it as guided_grammar, in the language of Lark"),
    "json_schema": ((), "give it as response_format"),
    "modalities": ((["text"],), "only text is generated"),
    "audio": ((), "only text is generated"),
    "prediction": ((), "the draft model predicts already"),
    "web_search_options": ((), "nothing is searched"),
    "verbosity": (("medium",), "say in a message how much to write"),
    "use_beam_search": ((False,), BEAMS),
    "length_penalty": ((1,), BEAMS),
    "typical_p": ((1,), INSTEAD),
    "top_a": ((0,), INSTEAD),
    "tfs_z": ((1,), INSTEAD),
    "mirostat": ((0,), INSTEAD),
    "xtc_probability": ((0,), INSTEAD),
    "dry_multiplier": ((0,), "use repetition_penalty"),
    "bad_words": (([],), "ban tokens with logit_bias"),
    "allowed_token_ids": ((), "ban other tokens with logit_bias"),
    "truncate_prompt_tokens": ((), "shorten the prompt"),
}


def settle(fields: dict[str, Any], known: Known, strict: bool) -> tuple[str, ...]:
    """Remove fields that need no support from a body, and return the names of ignored ones.

    Args:
        strict: refuse fields that would be ignored.

    Raises:
        BadRequest: for a field that is refused.
    """
    for name, value in list(fields.items()):
        if name not in known and (name in DROPPED or _changes_nothing(name, value)):
            del fields[name]
    names = []
    for name in _unknown(fields, known, ""):
        if strict:
            problem = "this field is unknown; docs/gateway.md lists all fields"
            raise BadRequest(problem, name, "unknown_parameter")
        names.append(name)
        if len(names) == MAX_NAMES:
            break
    return tuple(names)


def as_header(names: tuple[str, ...]) -> dict[str, str]:
    """Return the header that names ignored fields; characters beyond ASCII become question marks.

    Control characters do, too: a name is any string, and must not end the header.
    """
    if not names:
        return {}
    line = ", ".join(names)
    safe = "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
    return {HEADER: safe}


def _changes_nothing(name: str, value: object) -> bool:
    """Tell whether a field may be dropped. Raise `BadRequest` for an unsupported value."""
    if name not in REFUSED:
        return False
    harmless, instead = REFUSED[name]
    if value is not None and value not in harmless:
        raise BadRequest(
            f"this is not supported; leave it out ({instead})", name, "unsupported_parameter"
        )
    return True


def _unknown(fields: Mapping[str, Any], known: Known, path: str) -> Iterator[str]:
    """Yield the paths of unknown fields that are not empty, such as ``messages[0].id``."""
    for name, value in fields.items():
        where = f"{path}.{name}" if path else name
        if name not in known:
            if value not in (None, "", [], {}):
                yield where[:MAX_NAME_CHARS]
            continue
        inner = known[name]
        if inner is None:
            continue
        if isinstance(value, dict):
            yield from _unknown(value, inner, where)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, dict):
                    yield from _unknown(each, inner, f"{where}[{index}]")
