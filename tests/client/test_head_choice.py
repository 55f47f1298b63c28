"""A client holds the head itself unless it was told not to, or it does not fit."""

import types

import psutil
import pytest

from swarm.client.head_choice import MOST_MEMORY, holds_head
from swarm.client.settings import ClientSettings
from swarm.errors import ConfigError

LLAMA = types.SimpleNamespace(vocab_size=128_256, hidden_size=4096, plain_name="llama")
NEEDS_BYTES = 128_257 * 4096 * 4


@pytest.mark.parametrize(
    ("choice", "free_bytes", "held"),
    [
        ("auto", int(NEEDS_BYTES / MOST_MEMORY) + 1, True),
        ("auto", NEEDS_BYTES, False),
        ("local", 0, True),
        ("peer", NEEDS_BYTES * 10, False),
    ],
)
def test_auto_is_local_where_the_head_fits(
    choice: str, free_bytes: int, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = types.SimpleNamespace(available=free_bytes)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert holds_head(choice, LLAMA) == held


def test_another_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'both' is unknown; give auto, local, peer"):
        ClientSettings("model", head="both")
