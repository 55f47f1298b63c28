"""Loading checks the whole way from ids to logits: a model that spans would change is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from helpers.models import ARCHITECTURES
from helpers.sweep import bare
from swarm.errors import UnsupportedModel
from swarm.model import rehearsal
from swarm.model.anatomy import Parts, study
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.rehearsal import rehearsed
from swarm.model.span import Span


@pytest.fixture(autouse=True)
def _not_yet_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_passed", {})


@pytest.mark.parametrize("model_type", ["bloom", "deepseek_v3", "llama4_text"])
def test_a_model_of_published_size_is_rehearsed_by_a_small_one(model_type: str) -> None:
    """A configuration's defaults are a published model's: billions of weights, never made."""
    config = AutoConfig.for_model(model_type).get_text_config(decoder=True)
    whole = rehearsal.rehearse(model_type, config, study(bare(config))).whole
    assert sum(parameter.numel() for parameter in whole.parameters()) < 50e6


# What is lost, and from which model: a norm behind the layers, one before them, a scale or a cap
# has no module.
@pytest.mark.parametrize(
    ("name", "lost"), [("llama", "model.norm"), ("bloom", "transformer.word_embeddings_layernorm")]
)
def test_a_part_that_gets_lost_is_noticed(
    name: str, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = rehearsal.cut

    def losing(model: nn.Module, parts: Parts, layers: range, modules: tuple[str, ...]) -> None:
        cut(model, parts, layers, [each for each in modules if each != lost])

    ARCHITECTURES[name].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    monkeypatch.setattr(rehearsal, "cut", losing)
    for load in (lambda: Head.load(checkpoint), lambda: Span.load(checkpoint, 0, 2)):
        with pytest.raises(
            UnsupportedModel, match=r"do not give what the whole model gives \(logits differ"
        ):
            load()


def test_a_configuration_that_has_passed_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    rehearsed(Checkpoint.open(str(tmp_path / "model")))
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: pytest.fail("tried again"))
    rehearsed(Checkpoint.open(str(tmp_path / "model")))


def test_random_numbers_of_others_are_left_alone(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].save(tmp_path / "model")
    checkpoint = Checkpoint.open(str(tmp_path / "model"))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rehearsed(checkpoint)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize("model_type", ["ctrl"])
def test_a_model_whose_parts_do_not_add_up_is_refused(model_type: str) -> None:
    config = AutoConfig.for_model(model_type)
    with pytest.raises(UnsupportedModel, match="do not give what the whole model gives"):
        rehearsed(bare(config))
