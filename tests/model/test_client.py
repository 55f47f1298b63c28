"""What a client holds of the models, and which draft models it refuses."""

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, VOCAB
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from swarm.decoding.sampling import Sampling
from swarm.errors import ModelNotFound
from swarm.model.checkpoint import Checkpoint
from swarm.model.client import ClientModels, DraftMismatch, DraftModel


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


def test_a_draft_of_the_same_vocabulary_may_be_of_another_architecture(target, draft):
    loaded = ClientModels.load(target, draft)
    assert loaded.draft.model.config.model_type == "qwen3"
    assert not loaded.draft.model.training
    assert len(loaded.draft.drafter(Sampling(), frozenset()).draft([5, 6, 7], 4)) == 4


def test_drafters_share_the_model_and_nothing_else(target, draft):
    loaded = ClientModels.load(target, draft)
    one, other = (loaded.draft.drafter(Sampling(), frozenset()) for _ in range(2))
    expected = one.draft([5, 6, 7], 4)
    other.draft([8, 9], 4)
    assert one.model is other.model
    assert one.draft([5, 6, 7], 4) == expected


@pytest.mark.parametrize("words", [WORDS[:-1], [*WORDS[:-2], WORDS[-1], WORDS[-2]], [*WORDS[:-1], "other"]])
def test_a_draft_of_another_vocabulary_is_refused(words, target, tmp_path):
    name = save(tmp_path / "draft", "llama", words)
    with pytest.raises(DraftMismatch) as caught:
        ClientModels.load(target, name)
    assert (caught.value.draft, caught.value.target) == (name, "target")
    assert str(caught.value) == (
        f"{name} cannot draft for target: their vocabularies differ; "
        "give a draft model of the same family, or --draft none"
    )


def test_a_mismatch_is_found_before_any_weight_is_read(target, tmp_path):
    tokenizer_of(WORDS[:-1]).save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(target)
    with pytest.raises(DraftMismatch):
        DraftModel.load(str(tmp_path), checkpoint, checkpoint.tokenizer())


def test_a_draft_that_is_not_there_is_said_to_be_missing(target, tmp_path):
    with pytest.raises(ModelNotFound, match="cannot be loaded as a draft model") as caught:
        ClientModels.load(target, str(tmp_path / "nothing"))
    assert caught.value.model == str(tmp_path / "nothing")


def test_a_draft_without_safe_weights_is_not_loaded(target, draft, tmp_path):
    for file in Path(draft).iterdir():
        if "safetensors" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match="cannot be loaded as a draft model"):
        ClientModels.load(target, str(tmp_path))
