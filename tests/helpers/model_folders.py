"""Folders of a target and a draft model, as `swarm-peer join` and a client open them."""

from pathlib import Path

import pytest

from helpers.loopback import WORDS, tokenizer_of
from helpers.models import ARCHITECTURES


def save(folder: Path, architecture: str) -> str:
    ARCHITECTURES[architecture].save(folder)
    tokenizer_of(WORDS).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a target model of random weights."""
    return save(tmp_path_factory.mktemp("models") / "target", "llama")


@pytest.fixture(scope="session")
def draft(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a draft model with its vocabulary and another architecture."""
    return save(tmp_path_factory.mktemp("models") / "draft", "qwen3")
