"""Fixtures for checkpoints that are not ours; docs/testing.md says how to get them."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.checkpoints import GEMMA3, SETTING, SMOLLM2, PackagedCheckpoint
from helpers.swarm_in_process import Material
from swarm.client.models import ClientModels
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span

HERE = Path(__file__).parent
STAGES = ((0, 10), (10, 20), (20, 30))  # of SmolLM2, which has 30 layers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


def folder_of(source: PackagedCheckpoint) -> Path:
    """Return the checkpoint's folder, which tests have to copy before they change it."""
    folder = os.environ.get(SETTING)
    if not folder:
        pytest.skip(f"{SETTING} names no folder; `make real` makes one")
    if not (Path(folder) / source.name).is_dir():
        pytest.skip(f"{folder} has no {source.name}; `make real` puts it there")
    return Path(folder) / source.name


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A chat model, a Llama of 30 layers: byte-level vocabulary, tied embeddings."""
    return folder_of(SMOLLM2)


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """A base model of 18 layers, most with a sliding window: 262,144 tokens, no chat template."""
    return folder_of(GEMMA3)


def file_of(source: PackagedCheckpoint) -> Path:
    """Return the checkpoint's GGUF file, from which its folder was made."""
    file = folder_of(source).with_name(source.file)
    if not file.is_file():
        pytest.skip(f"{file.parent} has no {file.name}; `make real` puts it there")
    return file


@pytest.fixture(scope="session")
def smollm2_file() -> Path:
    """The GGUF file from which `smollm2` was made: Q4_1."""
    return file_of(SMOLLM2)


@pytest.fixture(scope="session")
def gemma3_file() -> Path:
    """The GGUF file from which `gemma3` was made: Q4_K_M, with four other types."""
    return file_of(GEMMA3)


@pytest.fixture(scope="session")
def whole(smollm2: Path) -> PreTrainedModel:
    """SmolLM2 as transformers computes it."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    assert isinstance(model, PreTrainedModel)
    return model


@pytest.fixture(scope="session")
def chain(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """SmolLM2 as a swarm computes it, in three spans, for `swarm_in_process.swarm_of`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        checkpoint = Checkpoint.open(str(smollm2))
        assert checkpoint.fingerprint
    spans = {span: Span.load(checkpoint, *span) for span in STAGES}
    return Material(checkpoint, spans, ClientModels.load(str(smollm2), None))
