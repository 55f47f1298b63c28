"""The token that ends a turn, as real templates write it."""

import pytest

from helpers.loopback import WORDS, tokenizer_of
from swarm.model.ending import end_of_turn, ending_tokens

CONTROL = ("<|im_end|>", "<|eot_id|>", "<|return|>", "<|end|>", "</s>", "<s>", "<|user|>")
EACH = "{% for m in messages %}"
# Who writes so, and the token that ends an answer; in CONTROL, behind the words.
TEMPLATES = {
    "ChatML": (
        EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
        "<|im_end|>",
    ),
    "Llama 3": (
        EACH + "{{ m.role }}\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}",
        "<|eot_id|>",
    ),
    "Llama 2": (
        EACH
        + "{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}"
        " </s>{% endif %}{% endfor %}",
        "</s>",
    ),
    "gpt-oss": (
        EACH
        + "{{ m.content }}{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{%"
        " endif %}{% endfor %}",
        "<|return|>",
    ),
    "nothing behind an answer": (EACH + "<|user|>{{ m.content }}{% endfor %}", None),
    "only a word": (EACH + "{{ m.content }} w5{% endfor %}", None),
    "one that refuses": ("{{ raise_exception('no') }}", None),
    "one that is none": ("{% for", None),
    "one that leaves answers out": ("{{ messages[0].content }}<|end|>", "<|end|>"),
    "none": (None, None),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_a_turn_is_what_the_template_writes_behind_the_last_answer(name: str) -> None:
    template, end = TEMPLATES[name]
    tokenizer = tokenizer_of([*WORDS, *CONTROL])
    tokenizer.add_special_tokens({"eos_token": "</s>", "additional_special_tokens": list(CONTROL)})
    tokenizer.chat_template = template
    if name == "one that leaves answers out":
        end = None
    expected = None if end is None else tokenizer.convert_tokens_to_ids(end)
    assert end_of_turn(tokenizer) == expected
    own = tokenizer.convert_tokens_to_ids("</s>")
    assert ending_tokens(tokenizer) == {own} | ({expected} - {None})
