"""Turn text into the token ids of a prompt."""

from typing import Any


def encoded(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text, with those that the tokenizer puts before every text.

    If the text begins with the name of that first token, as a chat template writes it, the token is
    not put there twice. Other control tokens in a text keep their meaning.
    """
    ids: list[int] = tokenizer(text).input_ids
    bos = getattr(tokenizer, "bos_token_id", None)
    name = getattr(tokenizer, "bos_token", None)
    if name and text.startswith(name) and ids[:2] == [bos, bos]:
        added = tokenizer("").input_ids[:1]
        if added == [bos]:
            del ids[0]
    return ids


def encoded_bare(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text, without those that the tokenizer puts before every text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids
