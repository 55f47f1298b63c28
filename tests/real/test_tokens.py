"""The tokenizer and the chat template of a real model."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from swarm.client.conversation import Conversation, Turn, by_template
from swarm.client.detokenizer import Detokenizer

TEXTS = (
    "Hello, world!  Two spaces,\n\ta tab, and\r\nanother line.\n",
    "naïve café, Straße, Ελλάδα, Привет, שלום, 你好世界, こんにちは, 한국어",
    "🥚🏳️‍🌈👩‍👩‍👧 and 12 + 30 = 42; def f(x): return x ** 2",
    "",
)


@pytest.fixture(scope="session")
def tokenizer(smollm2: Path) -> Any:
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_survives_its_tokens(text: str, tokenizer: Any) -> None:
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    stream = Detokenizer(tokenizer)
    assert "".join(map(stream.push, ids)) == text


def test_a_conversation_is_written_as_the_template_has_it(tokenizer: Any) -> None:
    talk = Conversation("Be brief.", (Turn("Hi.", "Hello."),))
    ids = by_template(tokenizer, "SmolLM2")(talk.messages("Who are you?"))
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi.<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 5
