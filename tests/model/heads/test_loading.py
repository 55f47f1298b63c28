"""Heads load as they are published, and draft what plain torch makes of their tensors."""

import json
import pickle
import re
from dataclasses import replace

import pytest
import torch

from helpers.feature_heads import (
    EAGLE,
    GLM,
    HIDDEN,
    QWEN,
    Reference,
    behind_the_last,
    beside_the_model,
    save_eagle,
    save_target,
    target_tensors,
    weights,
)
from helpers.models import VOCAB
from helpers.watching import Watching
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.errors import DamagedModel, ModelNotFound, UnsupportedModel
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import load_any_draft
from swarm.model.drafts.draft import DraftModel
from swarm.model.folder import look
from swarm.model.heads import loading, mtp
from swarm.model.heads.loading import FeatureDraft
from swarm.model.kernels.int8_linear import Int8Linear

PLAIN = ComputeOptions(device="cpu", draft_dtype="float32")
TEXT = [5, 9, 40, 7, 33, 21]
OUTPUTS = list(torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(3)))


def load(name, target, options=PLAIN):
    checkpoint = Checkpoint.open(str(target))
    return load_any_draft(str(name), checkpoint, checkpoint.tokenizer(), options)


def drafted(draft, count=3):
    drafter = draft.drafter(Sampling(), NO_SHAPING, frozenset())
    drafter.answered(TEXT, [Feature(at, (), output) for at, output in enumerate(OUTPUTS)])
    return drafter.draft(TEXT, count)


def errors(draft, reference, count=3):
    """How far the predictions of each drafted token in a row are from those of the reference."""
    far, line = [], tuple(TEXT)
    for guess in drafted(draft, count):
        [row] = reference.read(OUTPUTS, line)
        far.append(float((guess.logits - row).norm() / row.norm()))
        line = (*line, guess.token)
    return far


VARIANTS = {
    "without a bias": {"bias": False},
    "two layers": {"layers": 2},
    "biases of Qwen2": {
        "more": {
            f"layers.0.self_attn.{name}_proj.bias": weights(width)
            for name, width in {"q": HIDDEN, "k": HIDDEN // 2, "v": HIDDEN // 2}.items()
        }
    },
    "norms of HASS": {
        "more": {
            f"{name}_layernorm.weight": weights(HIDDEN, about=1.0)
            for name in ("embedding", "hidden_states")
        }
    },
    "pickled": {"pickled": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_eagle_heads_load_as_they_are_published(variant, target, tmp_path):
    save_eagle(tmp_path / "head", **VARIANTS[variant])
    look(str(tmp_path / "head"), draft=True)
    save_eagle(tmp_path / "same", **{**VARIANTS[variant], "pickled": False})
    names = replace(
        EAGLE,
        layers=tuple(f"layers.{i}." for i in range(VARIANTS[variant].get("layers", 1))),
        embedding_norm="embedding_layernorm",
        feature_norm="hidden_states_layernorm",
    )
    reference = Reference(names, target_tensors(target), target_tensors(tmp_path / "same"))
    assert max(errors(load(tmp_path / "head", target), reference)) < 1e-4


@pytest.mark.parametrize(
    ("names", "tensors"),
    [(GLM, behind_the_last(4)), (QWEN, beside_the_model())],
    ids=["GLM", "Qwen"],
)
def test_the_layer_inside_the_target_s_own_checkpoint_loads(names, tensors, tmp_path, monkeypatch):
    folder = save_target(tmp_path / "target", tensors)
    own = target_tensors(folder)
    read = []
    tensor = Checkpoint.tensor
    monkeypatch.setattr(
        Checkpoint, "tensor", lambda self, name: read.append(name) or tensor(self, name)
    )
    draft = load("mtp", folder)
    assert max(errors(draft, Reference(names, own, own))) < 1e-4
    beside = {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}
    copies = {"model.layers.4.shared_head.head.weight", "model.layers.4.embed_tokens.weight"}
    assert set(read) == beside | (tensors.keys() - copies)


@pytest.mark.parametrize("wrong", ["normed_states", "normed_features"])
def test_a_wrong_flag_of_the_family_is_seen(wrong, tmp_path):
    """So these tests see one: the state that is carried on shows from the second token on."""
    folder = save_target(tmp_path / "target", behind_the_last(4))
    draft = load("mtp", folder)
    own = target_tensors(folder)
    head = draft.parts.head
    head.wiring = replace(head.wiring, **{wrong: not getattr(head.wiring, wrong)})
    parts = replace(draft.parts, final_norm=None) if wrong == "normed_features" else draft.parts
    first, second, _ = errors(replace(draft, parts=parts), Reference(GLM, own, own))
    assert second > 0.01
    assert (first < 1e-4) == (wrong == "normed_states")


def test_deepseek_carries_the_state_before_its_norm(tmp_path, monkeypatch):
    monkeypatch.setattr(mtp, "CARRY_RAW_STATES", re.compile("llama"))
    folder = save_target(tmp_path / "target", behind_the_last(4))
    own = target_tensors(folder)
    reference = Reference(replace(GLM, carries_normed=False), own, own)
    assert max(errors(load("mtp", folder), reference)) < 1e-4


def test_a_head_with_a_vocabulary_of_its_own_predicts_no_other_tokens(target, tmp_path):
    tokens = torch.tensor([3, 4, 9, 30, 31, 80])
    own = {"lm_head.weight": weights(len(tokens), HIDDEN), "d2t": tokens - torch.arange(6)}
    save_eagle(tmp_path / "head", more=own)
    draft = load(tmp_path / "head", target)
    [guess] = drafted(draft, 1)
    possible = guess.logits > float("-inf")
    assert possible.nonzero().flatten().tolist() == tokens.tolist()
    head = target_tensors(tmp_path / "head")
    reference = Reference(EAGLE, target_tensors(target), head)
    reference.read(OUTPUTS, tuple(TEXT))
    expected = reference.states[tuple(TEXT)] @ own["lm_head.weight"].T
    torch.testing.assert_close(guess.logits[tokens], expected, rtol=1e-3, atol=1e-3)


def test_a_head_may_name_the_tokens_whose_rows_are_the_target_s(target, tmp_path):
    tokens = torch.tensor([3, 4, 9, 30, 31, 80])
    save_eagle(tmp_path / "head", more={"d2t": tokens - torch.arange(6)})
    draft = load(tmp_path / "head", target)
    assert draft.vocab == 6
    [guess] = drafted(draft, 1)
    reference = Reference(EAGLE, target_tensors(target), target_tensors(tmp_path / "head"))
    [expected] = reference.read(OUTPUTS, tuple(TEXT))
    torch.testing.assert_close(guess.logits[tokens], expected[tokens], rtol=1e-3, atol=1e-3)
    assert int((guess.logits > float("-inf")).sum()) == 6


def test_the_most_frequent_rows_of_the_target_s_lm_head_are_enough(target, tmp_path, monkeypatch):
    save_eagle(tmp_path / "head")
    whole = load(tmp_path / "head", target)
    monkeypatch.setattr(loading, "HEAD_VOCAB", 20)
    few = load(tmp_path / "head", target)
    every = load(tmp_path / "head", target, replace(PLAIN, draft_vocab="all"))
    assert (whole.vocab, every.vocab) == (VOCAB, VOCAB)
    assert few.vocab < VOCAB / 2
    [guess], [full] = drafted(few, 1), drafted(whole, 1)
    possible = guess.logits > float("-inf")
    assert int(possible.sum()) == few.vocab
    assert possible[2]  # the end of the text
    torch.testing.assert_close(guess.logits[possible], full.logits[possible], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "within"), [("bfloat16", 0.1), ("int8", 0.1)])
def test_a_head_drafts_in_other_dtypes(dtype, within, target, tmp_path):
    save_eagle(tmp_path / "head")
    draft = load(tmp_path / "head", target, replace(PLAIN, draft_dtype=dtype))
    assert (draft.dtype, draft.asked) == (dtype, True)
    reference = Reference(EAGLE, target_tensors(target), target_tensors(tmp_path / "head"))
    assert 0 < errors(draft, reference, 1)[0] < within


def test_in_int8_layers_that_read_the_same_input_share_a_product(target, tmp_path):
    save_eagle(tmp_path / "head")
    head = load(tmp_path / "head", target, replace(PLAIN, draft_dtype="int8")).parts.head
    attention, mlp = head.decoder.layers[0].self_attn, head.decoder.layers[0].mlp
    linears = [each for each in head.modules() if isinstance(each, Int8Linear)]
    assert len(linears) == 9  # of which three and two read the same
    assert len({id(each._group) for each in linears}) == 6
    assert attention.q_proj._group is attention.k_proj._group is attention.v_proj._group
    assert mlp.gate_proj._group is mlp.up_proj._group is not mlp.down_proj._group


def test_a_watch_is_told_of_a_head_s_forwards(target, tmp_path):
    save_eagle(tmp_path / "head")
    draft = load(tmp_path / "head", target)
    watch = Watching()
    draft.watch(watch)
    assert len(drafted(draft, 2)) == 2
    assert watch.told == ["begins", "ends"] * 2


def test_a_small_model_of_one_layer_is_no_head(target, tmp_path):
    save_target(tmp_path / "draft", num_hidden_layers=1)
    assert isinstance(load(tmp_path / "draft", target), DraftModel)
    save_eagle(tmp_path / "head")
    assert isinstance(load(tmp_path / "head", target), FeatureDraft)


# What cannot be loaded.


def damage(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def test_a_head_of_another_width_says_so(target, tmp_path):
    wide = 2 * HIDDEN
    save_eagle(tmp_path / "head", bias=False, more={"fc.weight": weights(wide, 2 * wide)})
    damage(tmp_path / "head", hidden_size=wide)
    with pytest.raises(UnsupportedModel, match=r"hidden states of 64 dimensions.* have 32"):
        load(tmp_path / "head", target)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"intermediate_size": 47}, "do not fit its configuration"),
        ({"num_attention_heads": 0}, "do not fit its configuration"),
        ({"num_hidden_layers": 2}, "lacks the weights of decoder.layers.1"),
        ({"hidden_act": "no such"}, "do not fit its configuration"),
    ],
)
def test_a_head_that_its_configuration_does_not_describe_says_so(settings, why, target, tmp_path):
    folder = damage(save_eagle(tmp_path / "head"), **settings)
    with pytest.raises(UnsupportedModel, match=why):
        load(folder, target)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_hidden_layers": 10**9, "draft_vocab_size": 9},
        {"transformer_layer_config": {"num_hidden_layers": 10**9}},
        {"draft_vocab_size": 9, "num_hidden_layers": 99},
    ],
)
def test_a_head_of_many_layers_is_refused_before_they_are_made(settings, target, tmp_path):
    folder = damage(save_eagle(tmp_path / "head"), **settings)
    with pytest.raises(UnsupportedModel, match="a head has 1 to 8"):
        load(folder, target)


@pytest.mark.parametrize("tokens", [[5, 4, 6, 7, 8, 9], [-1, 2, 3, 4, 5, 6], [3, 4, 5]])
def test_a_vocabulary_that_does_not_fit_says_so(tokens, target, tmp_path):
    numbers = torch.tensor(tokens)
    own = {"lm_head.weight": weights(6, HIDDEN), "d2t": numbers - torch.arange(len(tokens))}
    save_eagle(tmp_path / "head", more=own)
    with pytest.raises(DamagedModel, match=r"d2t.*does not fit"):
        load(tmp_path / "head", target)


def test_tokens_that_the_target_does_not_have_are_refused(target, tmp_path):
    own = {"lm_head.weight": weights(1, HIDDEN), "d2t": torch.tensor([VOCAB])}
    save_eagle(tmp_path / "head", more=own)
    with pytest.raises(UnsupportedModel, match="predicts tokens that"):
        load(tmp_path / "head", target)


def test_a_target_without_such_a_layer_says_so(target):
    with pytest.raises(UnsupportedModel, match="no layer that predicts further tokens"):
        load("mtp", target)


@pytest.mark.parametrize("missing", ["enorm.weight", "mlp.up_proj.weight"])
def test_a_layer_that_is_not_whole_says_so(missing, tmp_path):
    tensors = behind_the_last(4)
    del tensors[f"model.layers.4.{missing}"]
    folder = save_target(tmp_path / "target", tensors)
    with pytest.raises(UnsupportedModel, match=missing.split(".")[0]):
        load("mtp", folder)


class Harm:
    """A pickle that runs code when it is read by an unpickler that allows it."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_that_would_run_code_is_refused(target, tmp_path):
    folder = save_eagle(tmp_path / "head", pickled=True)
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"fc.weight": Harm(tmp_path / "harm")}, file)
    with pytest.raises(DamagedModel, match="holds more than tensors"):
        load(folder, target)
    assert not (tmp_path / "harm").exists()


def test_a_head_cannot_draft_in_nf4(target, tmp_path):
    save_eagle(tmp_path / "head")
    with pytest.raises(UnsupportedModel, match="give another draft dtype"):
        load(tmp_path / "head", target, replace(PLAIN, draft_dtype="nf4"))


def test_a_name_that_is_nothing_is_not_found(target):
    with pytest.raises(ModelNotFound):
        load("./no-such-folder", target)
