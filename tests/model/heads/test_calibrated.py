"""A trained head whose layers, norm or carried state are wired wrongly is caught; else it stays."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.feature_heads import HIDDEN, LLAMA, save_target
from helpers.models import VOCAB
from helpers.tapping_heads import eagle3_tensors
from swarm.decoding.calibration import LAGS, Calibration
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.sampling import Sampling
from swarm.decoding.shaping import NO_SHAPING
from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import load_any_draft
from swarm.model.heads.eagle3 import Eagle3Head, eagle3_head

TAPS = (1, 2, 3)
CONFIG: dict[str, Any] = {
    "speculators_model_type": "eagle3",
    "transformer_layer_config": {**LLAMA, "vocab_size": VOCAB},
    "draft_vocab_size": VOCAB,
    "eagle_aux_hidden_state_layer_ids": [layer + 1 for layer in TAPS],
}
LENGTH = 9
STEPS = 250
WRONG = {
    "layers": {"eagle_aux_hidden_state_layer_ids": list(TAPS)},  # those before them
    "norm": {"norm_before_residual": True},
    "state": {"norm_output": True},
}


@dataclass
class Lesson:
    """Texts of the target, and what its layers give.

    Attributes:
        texts: ``[n, LENGTH]``.
        outputs: ``[n, LENGTH, layers, hidden]``, of all layers.
    """

    folder: Path
    texts: Tensor
    outputs: Tensor
    embedding: Tensor


def layer_outputs(model: PreTrainedModel, texts: Tensor) -> Tensor:
    caught: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda *each: caught.append(each[2]))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(texts)
    for hook in hooks:
        hook.remove()
    return torch.stack(caught, dim=2)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    """A target whose next token depends on the last one alone, so that little has to be learned."""
    folder = save_target(tmp_path_factory.mktemp("target"))
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.mul_(
                5.0 ** (index + 1)
            )  # outputs differ from layer to layer
        model.save_pretrained(folder)
        texts = torch.arange(VOCAB)[:, None]
        while texts.shape[1] < LENGTH:
            texts = torch.cat((texts, model(texts).logits[:, -1:].argmax(-1)), dim=1)
    return Lesson(folder, texts, layer_outputs(model, texts), model.model.embed_tokens.weight.data)


@pytest.fixture(scope="module")
def head(lesson: Lesson) -> Eagle3Head:
    """A head that was trained on the target's texts, four tokens ahead on states of its own.

    It does not see the embedding: in so small a world that would tell everything.
    """
    torch.manual_seed(1)
    shapes = {name: each.shape for name, each in eagle3_tensors("layers.0.", False, False).items()}
    head = eagle3_head(CONFIG, shapes, HIDDEN)
    head.lm_head = torch.nn.Linear(HIDDEN, VOCAB, bias=False)
    blind = head.decoder.layers[0].input_layernorm.weight
    blind.data.zero_()
    blind.requires_grad_(False)
    # inner states are far larger than what is behind a norm, as in models that are not tiny
    head.fusion.fc.weight.data *= 5
    optimizer = torch.optim.Adam(head.parameters(), lr=4e-3)
    embedded = lesson.embedding[lesson.texts[:, 1:]]
    for _ in range(STEPS):
        features = head.enter(lesson.outputs[:, :-1, list(TAPS)])
        loss = torch.zeros(())
        for step in range(LAGS):
            states = head(embedded, features)
            predicted = head.logits(states)[:, step:-1]
            goal = lesson.texts[:, 2 + step :]
            loss = loss + cross_entropy(predicted.flatten(0, 1), goal.flatten())
            features = torch.cat((features[:, :1], states[:, :-1]), dim=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


def save(head: Eagle3Head, folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    renamed = {
        name.replace("decoder.", "").replace("fusion.", ""): each.contiguous()
        for name, each in head.state_dict().items()
    }
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def calibrated(folder: Path, lesson: Lesson) -> Calibration:
    """Draft behind the beginnings of all texts, and note which guesses the target agrees with."""
    checkpoint = Checkpoint.open(str(lesson.folder))
    options = ComputeOptions(device="cpu", draft_dtype="float32")
    draft = load_any_draft(str(folder), checkpoint, checkpoint.tokenizer(), options)
    calibration = Calibration()
    for text, outputs in zip(lesson.texts.tolist(), lesson.outputs, strict=True):
        drafter = draft.drafter(Sampling(), NO_SHAPING, frozenset())
        known = 3
        read = outputs[:known, list(drafter.taps)]
        drafter.answered(text[: known + 1], [Feature(at, (), row) for at, row in enumerate(read)])
        guesses = drafter.draft(text[: known + 1], LAGS)
        for lag, (guess, token) in enumerate(zip(guesses, text[known + 1 :], strict=False), 1):
            calibration.observe(lag, guess.token == token)
            if guess.token != token:
                break
    return calibration


def test_a_head_that_is_wired_as_it_was_trained_stays(
    head: Eagle3Head, lesson: Lesson, tmp_path: Path
) -> None:
    calibration = calibrated(save(head, tmp_path / "head"), lesson)
    assert calibration.failure == ""
    assert all(rate is not None and rate > 0.8 for rate in calibration.rates)


@pytest.mark.parametrize("what", WRONG)
def test_a_head_that_is_wired_wrongly_is_caught(
    what: str, head: Eagle3Head, lesson: Lesson, tmp_path: Path
) -> None:
    calibration = calibrated(save(head, tmp_path / "head", **WRONG[what]), lesson)
    if what == "state":
        assert "does not go on with the states" in calibration.failure
    else:
        assert "does not read what it was trained on" in calibration.failure
