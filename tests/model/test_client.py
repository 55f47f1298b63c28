"""What a client holds of the models."""

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, VOCAB
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from swarm.model.client import ClientModels


def tokenizer_of(words):
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=words[0])


def save(folder: Path, architecture, words) -> str:
    ARCHITECTURES[architecture].save(folder)
    tokenizer_of(words).save_pretrained(folder)
    return str(folder)


WORDS = [f"w{i}" for i in range(VOCAB)]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "target", "llama", WORDS)


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "draft", "qwen3", WORDS)


def test_the_head_and_the_tokenizer_are_the_targets(target):
    loaded = ClientModels.load(target, None)
    assert loaded.draft is None
    assert loaded.tokenizer.get_vocab() == {word: i for i, word in enumerate(WORDS)}
    assert loaded.head.logits(torch.zeros(2, loaded.checkpoint.hidden_size)).shape == (2, VOCAB)


def test_the_draft_model_comes_with_them(target, draft):
    assert ClientModels.load(target, draft).draft.model.config.model_type == "qwen3"
