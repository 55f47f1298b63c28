import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from helpers.loopback import WORDS, tokenizer_of
from helpers.models import ARCHITECTURES
from swarm.model import rehearsal


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged model, not to be changed."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    ARCHITECTURES["llama"].save(folder)
    tokenizer_of(WORDS).save_pretrained(folder)
    return folder


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What transformers logs during the test."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    transformers_logging.add_handler(handler)
    yield said
    transformers_logging.remove_handler(handler)


@pytest.fixture
def rehearsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configuration is rehearsed, whether it has passed before or not."""
    monkeypatch.setattr(rehearsal, "_passed", {})
