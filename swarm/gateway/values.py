"""Values of request fields: how each is read, and what it may be.

Some clients send every field that they know, with values that stand for the default: -1 tokens, an
empty stop string. These count as the default. A whole number may be written as 4096.0.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from swarm.decoding.sampling import MAX_SEED
from swarm.request import MAX_LOGPROBS
from swarm.wire.fields import MAX_SESSION_TOKENS

MAX_WHOLE = (1 << 63) - 1  # of any whole number but a seed: no arithmetic on huge integers
MAX_KEY_CHARS = 32  # of a wrong key that an error quotes


def read_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def read_whole(value: object) -> object:
    """Read a whole number as `read_integer` does, clamped to `MAX_WHOLE`.

    Only a field without a bound accepts `MAX_WHOLE` (``top_k``: all tokens); others refuse it by
    their own bound.
    """
    value = read_integer(value)
    return max(-MAX_WHOLE, min(value, MAX_WHOLE)) if type(value) is int else value


def read_integer(value: object) -> object:
    """Read 4096.0 as 4096: some languages have only one type of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_count(value: object) -> object:
    """Read a number of tokens; 0 and -1 set no limit, as in other servers."""
    value = read_whole(value)
    return None if type(value) is int and value in (-1, 0) else value


def read_seed(value: object) -> object:
    """Read any integer, however large; -1 stands for a random seed, as in other servers."""
    value = read_integer(value)
    if type(value) is not int:
        return value
    return None if value == -1 else value & MAX_SEED


def read_likely(value: object) -> object:
    """Read a completion's ``logprobs``, a number of tokens; false, as in a chat, stands for none.

    Raise ValueError for true, which gives no number.
    """
    if value is True:
        raise ValueError(
            f"give the number of most likely tokens to return, from 0 to {MAX_LOGPROBS}"
        )
    return None if value is False else read_whole(value)


def read_switch(value: object) -> object:
    """Read a chat's ``logprobs``; 0 stands for false, as in a completion."""
    return False if type(value) is int and value == 0 else value


def read_prompts(value: object) -> object:
    """Read one prompt, text or token ids, as a list of one prompt."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    return value


def check_ids(prompts: list[str | list[int]]) -> list[str | list[int]]:
    """Return the prompts, or raise ValueError for a token id beyond `MAX_WHOLE`.

    Smaller ids that the model does not have are refused, and quoted, where the model is known.
    """
    for ids in prompts:
        if isinstance(ids, list) and ids and max(max(ids), -min(ids)) > MAX_WHOLE:
            raise ValueError(f"no token id is beyond {MAX_WHOLE}")
    return prompts


def check_bias_keys(biases: dict[str, float]) -> dict[str, float]:
    """Return the biases, or raise ValueError for a key that is no token id."""
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise ValueError(f"{key[:MAX_KEY_CHARS]!r} is no token id")
    return biases


class Part(BaseModel):
    """Fields that belong together: strictly typed, and null stands for a field that is not there.

    Fields that it does not know are dropped here; `swarm.gateway.unknown` names them before.
    """

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        """Drop fields that are null."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


Whole = Annotated[int, BeforeValidator(read_whole)]
NewTokens = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SESSION_TOKENS)] | None,
    BeforeValidator(read_count),
]
Seed = Annotated[int | None, BeforeValidator(read_seed)]
Stops = Annotated[list[str], BeforeValidator(read_list)]
TokenBiases = Annotated[dict[str, float], AfterValidator(check_bias_keys)]
