"""Which draft models may draft for a target, and what they draft."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from helpers.gguf_files import Q4_0, convert, vocabulary
from helpers.loopback import WORDS, tokenizer_of
from helpers.model_files import add, edit
from helpers.models import ARCHITECTURES, VOCAB
from helpers.recurrent_models import RECURRENT
from swarm.decoding.drafting.choices import Chooser
from swarm.decoding.drafting.model import ModelDrafter
from swarm.decoding.drafting.reduced import ReducedVocabulary
from swarm.decoding.drafting.tree import TreeDrafter
from swarm.decoding.drafting.vocabulary import SameVocabulary, Translation
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.errors import DraftMismatch, ModelNotFound, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import find_draft
from swarm.model.drafts.draft import AS_IT_IS, DraftModel

SAMPLED = Sampling(1.0, seed=3)


def save(folder: Path, architecture, words) -> str:
    ARCHITECTURES[architecture].save(folder)
    tokenizer_of(words).save_pretrained(folder)
    return str(folder)


def load(draft, target, options=AS_IT_IS) -> DraftModel:
    checkpoint = Checkpoint.open(target)
    return DraftModel.load(draft, checkpoint, checkpoint.tokenizer(), options)


def drafter(draft, sampling=SAMPLED):
    return draft.drafter(sampling, NO_SHAPING, frozenset())


def tokens(drafted):
    return [guess.token for guess in drafted]


def test_a_draft_of_the_same_vocabulary_may_be_of_another_architecture(target, draft):
    loaded = load(draft, target)
    assert loaded.model.config.model_type == "qwen3"
    assert not loaded.model.training
    assert loaded.vocabulary == SameVocabulary(VOCAB)
    assert len(drafter(loaded).draft([5, 6, 7], 4)) == 4


def test_drafters_share_the_model_and_nothing_else(target, draft):
    loaded = load(draft, target)
    one, other = drafter(loaded), drafter(loaded)
    expected = tokens(one.draft([5, 6, 7], 4))
    other.draft([8, 9], 4)
    assert one.reader.model is other.reader.model
    assert tokens(one.draft([5, 6, 7], 4)) == expected


@pytest.mark.parametrize(
    ("architecture", "kind"), [("gemma2", TreeDrafter), ("falcon", ModelDrafter)]
)
def test_a_model_that_takes_branches_drafts_them_together(architecture, kind, target, tmp_path):
    loaded = load(save(tmp_path / "draft", architecture, WORDS), target)
    drafting = drafter(loaded)
    plain = ModelDrafter(loaded.model, Chooser(SAMPLED, loaded.vocabulary))
    assert type(drafting) is kind
    paths = [[8], [], [9, 10]]
    for guesses, path in zip(drafting.draft_each([5, 6, 7], paths, 3), paths, strict=True):
        assert tokens(guesses) == tokens(plain.draft([5, 6, 7, *path], 3))


@pytest.mark.parametrize("architecture", ["qwen3_5_text", "lfm2", "mamba", "granitemoehybrid"])
def test_a_model_that_keeps_states_drafts_as_a_full_reading_does(architecture, target, tmp_path):
    """Whatever was drafted before: states are taken back as keys and values are."""
    whole = RECURRENT[architecture].save(tmp_path / "draft")
    tokenizer_of(WORDS).save_pretrained(tmp_path / "draft")
    drafting = drafter(load(str(tmp_path / "draft"), target), Sampling())
    assert type(drafting) is ModelDrafter
    rng = random.Random(3)
    sequence = [rng.randrange(3, VOCAB) for _ in range(9)]
    for _ in range(8):
        count = rng.randint(1, 5)
        expected = list(sequence)
        for _ in range(count):
            with torch.inference_mode():
                logits = whole(input_ids=torch.tensor([expected]), use_cache=False).logits[0, -1]
            expected.append(int(logits.argmax()))
        drafted = tokens(drafting.draft(sequence, count))
        assert drafted == expected[len(sequence) :]
        kept = rng.randint(0, count)
        sequence = [*sequence[: rng.randint(5, len(sequence))], *drafted[:kept], 3 + kept]


def test_a_model_that_keeps_states_reads_little_again(target, tmp_path):
    RECURRENT["lfm2"].save(tmp_path / "draft")
    tokenizer_of(WORDS).save_pretrained(tmp_path / "draft")
    loaded = load(str(tmp_path / "draft"), target)
    drafting = drafter(loaded, Sampling())
    read = []
    loaded.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].shape[-1])
    )
    sequence = [5, 6, 7] * 20
    for turn in range(40):  # the second drafted token is corrected each time
        drafted = tokens(drafting.draft(sequence, 4))
        sequence = [*sequence, drafted[0], (drafted[1] + 1) % VOCAB]
        assert turn == 0 or sum(read) < 40, turn
        read.clear()
    drafting.draft([8, 9, 10], 1)  # another text
    assert read == [3]


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_the_same_network_with_other_ids_drafts_the_same_tokens(sampling, target, tmp_path):
    # row i of the draft was row order[i]
    order = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(4))
    permuted = save(tmp_path / "permuted", "llama", [WORDS[i] for i in order.tolist()])
    model = ARCHITECTURES["llama"].save(tmp_path / "permuted")
    with torch.no_grad():
        for rows in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            rows.copy_(rows[order].clone())
    model.save_pretrained(permuted)
    translated, plain = load(permuted, target), load(target, target)
    assert isinstance(translated.vocabulary, Translation)
    assert translated.vocabulary.coverage == 1.0
    one, other = drafter(translated, sampling), drafter(plain, sampling)
    for sequence in ([5, 6, 7], [5, 6, 7, 8, 9, 10], [5, 6, 11], [12]):
        drafted, expected = one.draft(sequence, 8), other.draft(sequence, 8)
        assert tokens(drafted) == tokens(expected)
        for guess, same in zip(drafted, expected, strict=True):
            torch.testing.assert_close(guess.logits, same.logits)


@pytest.mark.parametrize(
    "words", [WORDS[:-1], [*WORDS[:-1], "other"], [*WORDS[:40], *(f"x{i}" for i in range(57))]]
)
def test_a_draft_that_knows_other_words_drafts_those_that_both_know(words, target, tmp_path):
    drafted = drafter(load(save(tmp_path / "draft", "qwen3", words), target)).draft(
        [5, VOCAB - 1, 6], 20
    )
    assert len(drafted) == 20
    assert all(WORDS[token] in words for token in tokens(drafted))


@pytest.mark.parametrize("architecture", ["gemma2", "falcon"])
def test_rows_of_tokens_that_the_target_does_not_have_are_not_computed(
    architecture, target, tmp_path
):
    """And the drafts are the same, as a tree and one by one."""
    words = [*WORDS[:40], *(f"x{i}" for i in range(VOCAB - 40))]
    name = save(tmp_path / "draft", architecture, words)
    whole = load(name, target)
    reduced = load(name, target, ComputeOptions(device="cpu", draft_dtype="float32"))
    assert (whole.vocab, reduced.vocab) == (VOCAB, 40)
    assert isinstance(reduced.vocabulary, ReducedVocabulary)
    for sampling in (Sampling(), SAMPLED):
        one, other = drafter(reduced, sampling), drafter(whole, sampling)
        for sequence in ([5, 6, 7], [5, 6, 7, 8, 9], [5, 90]):
            drafted, expected = one.draft(sequence, 6), other.draft(sequence, 6)
            assert tokens(drafted) == tokens(expected)
            for guess, same in zip(drafted, expected, strict=True):
                torch.testing.assert_close(guess.logits, same.logits)


def test_a_number_keeps_the_most_frequent_and_those_that_end_a_text(target, draft, monkeypatch):
    monkeypatch.setattr("swarm.model.compute.MIN_DRAFT_VOCAB", 1)
    options = ComputeOptions(device="cpu", draft_dtype="float32", draft_vocab=20)
    reduced = load(draft, target, options)
    assert 20 <= reduced.vocab < 30
    (guess,) = drafter(reduced).draft([5, 6, 7], 1)
    says = guess.logits.isfinite().nonzero().flatten().tolist()
    assert len(says) == reduced.vocab
    assert Checkpoint.open(target).eos_token_ids <= set(says)


@pytest.mark.parametrize("options", [AS_IT_IS, ComputeOptions(device="cpu", draft_dtype="int8")])
def test_a_draft_may_be_a_gguf_file(options, tmp_path):
    """It drafts as the same weights do from a folder, in the dtype that is asked for."""
    plain = ARCHITECTURES["llama"].save(tmp_path / "plain")
    content, whole = convert(plain, Q4_0, vocabulary(plain.config, WORDS))
    file = str(content.write(tmp_path / "draft.gguf"))
    whole.save_pretrained(tmp_path / "wide")
    tokenizer_of(WORDS).save_pretrained(tmp_path / "wide")
    target = save(tmp_path / "target", "llama", WORDS)
    expected = tokens(drafter(load(str(tmp_path / "wide"), target, options)).draft([5, 6, 7], 4))
    loaded = load(file, target, options)
    assert loaded.vocabulary == SameVocabulary(VOCAB)
    assert loaded.dtype == options.draft_dtype
    assert tokens(drafter(loaded).draft([5, 6, 7], 4)) == expected
    find_draft(file, Checkpoint.open(target))


def test_a_draft_that_shares_too_little_is_refused(target, tmp_path):
    name = save(tmp_path / "draft", "llama", [*WORDS[:24], *(f"x{i}" for i in range(VOCAB - 24))])
    with pytest.raises(DraftMismatch) as caught:
        load(name, target)
    assert (caught.value.draft, caught.value.target, caught.value.overlap) == (
        name,
        "target",
        23 / (VOCAB - 1),
    )
    assert str(caught.value) == (
        f"{name} cannot draft for target: they share 24% of the smaller vocabulary, "
        "and drafting needs 25%; give a draft model of the same family, or --draft none"
    )


def test_a_mismatch_is_found_before_any_weight_is_read(target, draft, tmp_path, monkeypatch):
    shutil.copytree(draft, tmp_path, dirs_exist_ok=True)
    tokenizer_of(["w0", "x1", "x2"]).save_pretrained(tmp_path)
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights are read")
    )
    with pytest.raises(DraftMismatch):
        load(str(tmp_path), target)


def test_a_draft_that_is_not_there_is_said_to_be_missing(target, tmp_path):
    with pytest.raises(ModelNotFound, match="there is no such folder") as caught:
        load(str(tmp_path / "nothing"), target)
    assert caught.value.model == str(tmp_path / "nothing")


def test_a_draft_without_safe_weights_is_not_loaded(target, draft, tmp_path):
    for file in Path(draft).iterdir():
        if "safetensors" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="no safetensors weights; pickled ones are not read"):
        load(str(tmp_path), target)


def test_a_draft_whose_class_cannot_be_built_is_one_sentence(target, draft, tmp_path):
    shutil.copytree(draft, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    config.write_text(
        config.read_text().replace('"num_attention_heads": 4', '"num_attention_heads": 3')
    )
    with pytest.raises(ModelNotFound, match="cannot be loaded as a draft model"):
        load(str(tmp_path), target)


@pytest.mark.parametrize(
    ("changes", "parameter", "words"),
    [
        ({"num_hidden_layers": 5}, None, "lacks the weights of model.layers.4."),
        ({"num_hidden_layers": 3}, None, "holds model.layers.3, which"),
        ({}, "model.layers.0.self_attn.q_proj.bias", "q_proj.bias, which"),
        ({}, "model.layers.4.eh_proj.weight", None),
    ],
)
def test_a_draft_whose_weights_are_those_of_another_model_is_refused(
    changes, parameter, words, target, draft, tmp_path
):
    """It would draft at random, and no text would show it."""
    shutil.copytree(draft, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "config.json", **changes, layer_types=None)
    if parameter:
        add(tmp_path, parameter, torch.ones(32))
    if words is None:
        load(str(tmp_path), target)
        return
    with pytest.raises(UnsupportedModel, match=words):
        load(str(tmp_path), target)


@pytest.mark.parametrize("shown", [True, False])
def test_loading_shows_no_progress_bar_and_leaves_the_setting_as_it_was(
    shown, target, draft, capfd
):
    before = transformers_logging.is_progress_bar_enabled()
    switch = {
        True: transformers_logging.enable_progress_bar,
        False: transformers_logging.disable_progress_bar,
    }
    try:
        switch[shown]()
        load(draft, target)
        assert transformers_logging.is_progress_bar_enabled() == shown
    finally:
        switch[before]()
    assert "Loading weights" not in capfd.readouterr().err
