"""Text to the token ids of a prompt."""

from typing import Any


def encoded(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text that a model goes on from, with those that its tokenizer puts before
    every text.

    A text may begin with the name of that token, as one that a chat template wrote: then it is not
    put there twice. Other control tokens in a text are what they are.
    """
    ids: list[int] = tokenizer(text).input_ids
    bos, name = getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "bos_token", None)
    if (
        name
        and text.startswith(name)
        and ids[:2] == [bos, bos]
        and tokenizer("").input_ids[:1] == [bos]
    ):
        del ids[0]
    return ids
