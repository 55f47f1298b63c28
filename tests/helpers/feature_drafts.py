"""Drafts by heads that read the target's states, over real peers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from helpers.loopback import soon
from helpers.swarm_in_process import Material, Swarm
from swarm.decoding.calibration import Calibrations
from swarm.decoding.confidence import Confidence
from swarm.decoding.drafting.blocks import BlockDrafter
from swarm.decoding.drafting.feature import Feature
from swarm.decoding.drafting.features import FeatureDrafter
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.choice import load_any_draft
from swarm.outputs import Generation

# The noise decides nearly everything, and the draft has the same: so even a random head is right.
HOT: dict[str, Any] = {"temperature": 8.0, "seed": 5}
# The drafter is asked again and again, up to the text's end.
SHORT_WINDOWS: dict[str, Any] = {**HOT, "depth": 1, "window": 2, "lookup": False}
PLAIN: dict[str, Any] = {"window": 0}


@dataclass
class Told:
    """What the drafters of some texts were told: committed tokens, and a feature."""

    features: list[tuple[tuple[int, ...], Feature]] = field(default_factory=list)

    @property
    def positions(self) -> list[int]:
        """Of the features of tokens that were part of the text."""
        return [feature.position for _, feature in self.features if not feature.path]


def note_what_is_told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Note it from now on."""
    told = Told()
    for drafter in (FeatureDrafter, BlockDrafter):

        def note(self: Any, text: Any, features: Any, answered: Any = drafter.answered) -> None:
            told.features += [(tuple(text), feature) for feature in features]
            answered(self, text, features)

        monkeypatch.setattr(drafter, "answered", note)
    return told


def with_draft(material: Material, folder: Path) -> Material:
    """Return clients and peers with a head as the draft, which no text was drafted by yet."""
    options = ComputeOptions(device="cpu", draft_dtype="float32")
    models = material.models
    draft = load_any_draft(str(folder), material.checkpoint, models.tokenizer, options)
    fresh = {"confidence": Confidence(), "calibrations": Calibrations()}
    return replace(material, models=replace(models, draft=draft, **fresh))


def outputs_of_layers(material: Material) -> Callable[[tuple[int, ...]], Tensor]:
    """Return a function from a text to the outputs ``[n, layers, hidden]`` of the whole target."""
    folder = Path(material.checkpoint._source.path)  # type: ignore[attr-defined]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    caught: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda *each: caught.append(each[2]))

    @torch.inference_mode()
    def run(tokens: tuple[int, ...]) -> Tensor:
        caught.clear()
        model(torch.tensor([tokens]))
        return torch.stack([each.reshape(len(tokens), -1) for each in caught], dim=1)

    return run


async def write(swarm: Swarm, **options: Any) -> Generation:
    return await soon(swarm.write(**options))
