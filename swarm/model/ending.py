"""Tokens that end a text: the tokenizer's end of text, and the chat template's end of a turn."""

from transformers import PreTrainedTokenizerBase

QUESTION, ANSWER = "What is there to say?", "All that there is to say."


def ending_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token that ends a text, and the chat template's token behind answers."""
    ends = {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    return frozenset(token for token in ends if isinstance(token, int))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token behind the last answer of a conversation; None without one.

    The conversation ends with the answer, because some templates write other tokens within one:
    gpt-oss has ``<|return|>`` at the end and ``<|end|>``, which also ends a thought, everywhere
    else.
    """
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        chat = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template is a program that came with the model: it may raise anything
        return None
    _, answer, behind = chat.rpartition(ANSWER)
    written = behind.lstrip()
    control = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
    found = [name for name in control if answer and name and written.startswith(name)]
    return control[max(found, key=len)] if found else None
