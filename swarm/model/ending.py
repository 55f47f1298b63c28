"""Which tokens end a text, as far as its tokenizer knows: its own end of a text, and the end of a
turn."""

from transformers import PreTrainedTokenizerBase

QUESTION, ANSWER = "What is there to say?", "All that there is to say."


def ending_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The token that ends a text, and the one that the chat template writes behind an answer."""
    ends = {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    return frozenset(token for token in ends if isinstance(token, int))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The control token that follows the last answer of a conversation; None where none does, or
    there is no template.

    It is read off a conversation that ends with the answer. Within one, some templates write other
    tokens: gpt-oss has ``<|return|>`` at the end and ``<|end|>``, which also ends a thought,
    everywhere else.
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
