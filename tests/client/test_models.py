"""What a client holds of the models."""

import torch

from helpers.loopback import WORDS
from helpers.models import VOCAB
from swarm.client.models import ClientModels


def test_the_head_and_the_tokenizer_are_the_targets(target):
    loaded = ClientModels.load(target, None)
    assert loaded.draft is None
    assert loaded.tokenizer.get_vocab() == {word: i for i, word in enumerate(WORDS)}
    assert loaded.head.logits(torch.zeros(2, loaded.checkpoint.hidden_size)).shape == (2, VOCAB)


def test_the_draft_model_comes_with_them(target, draft):
    assert ClientModels.load(target, draft).draft.model.config.model_type == "qwen3"
