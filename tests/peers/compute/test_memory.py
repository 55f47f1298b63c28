"""What layers take is known before they are loaded, and what there is, is not more than we may
use."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.models import ARCHITECTURES, LAYERS, UNSUPPORTED, Architecture
from helpers.recurrent_models import RECURRENT
from peers.compute.free_memory import free_bytes
from peers.compute.memory import (
    CACHE_TOKENS,
    DeviceMemory,
    DoesNotFit,
    MemoryBudget,
    MemoryNeeds,
)
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.wire.token_tree import Placement

CPU = torch.device("cpu")
MB = 1 << 20
NEEDS = MemoryNeeds(
    head_bytes=7 * MB,
    layer_bytes=(10 * MB,) * 8,
    entry_bytes=5 * MB,
    loading_bytes=MB,
    cache_bytes=(100,) * 8,
    kept_bytes=0,
    batch_bytes=2 * MB,
    position_bytes=0,
    context=4096,
)


def room(
    has_bytes: int, cache_tokens: int | None = None, needs: MemoryNeeds = NEEDS
) -> MemoryBudget:
    return MemoryBudget("model", DeviceMemory(CPU), needs, has_bytes, cache_tokens)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(UNSUPPORTED)))
def test_needs_are_what_spans_take(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    cut = 2 if name == "glm_moe_dsa_shared" else 1  # others share what layer 0 chooses
    for first, last, dtype in ((0, 2, torch.float32), (cut, LAYERS, torch.bfloat16)):
        needs = MemoryNeeds.of(checkpoint, dtype, CPU)
        span = Span.load(checkpoint, first, last, dtype=dtype)
        assert needs.weights(first, last) == pytest.approx(span.nbytes, rel=0.02)
        if not span.recurrent:
            assert needs.cached(first, last) == span.nbytes_per_token


@pytest.mark.parametrize("name", ["qwen3_next", "kimi_linear", "jamba", "mamba", "nemotron_h"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_needs_of_layers_that_keep_states(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    RECURRENT[name].save(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    needs = MemoryNeeds.of(checkpoint, dtype, CPU)
    for layers in ((0, 2), (1, LAYERS)):
        span = Span.load(checkpoint, *layers, dtype=dtype)
        assert needs.cached(*layers) >= span.nbytes_per_token  # more of layers of experts alone
        assert sum(needs.state_bytes[slice(*layers)]) == span.nbytes_of_states
        # As many sessions as the budget allows never take more than what is set aside for them.
        budget = MemoryBudget("model", DeviceMemory(CPU), needs, 1 << 40, 4096).cache_budget(layers)
        spare = needs.total(0, needs.cached(*layers), 4096, needs.states(*layers))
        spare -= needs.batch_bytes
        for tokens in (4, 300):
            reserved = []
            while budget.free_tokens >= tokens:
                reserved.append(budget.reserve(tokens))
            held = session_bytes(span, min(tokens, 8)) + tokens * span.nbytes_per_token
            assert 0 < len(reserved) * held <= spare
            for each in reserved:
                budget.release(each)


def session_bytes(span: Span, frames: int) -> int:
    """Return what a session takes besides rows of the cache: frames of one token, none answered."""
    cache = span.new_cache(limit=frames)
    for row in range(frames):
        inputs = torch.zeros(1, span.hidden_size) if span.first else torch.zeros(1).long()
        span.forward([Work(cache, inputs, Placement(row, (), (row,), trunk=0, sees=None))])
    assert cache.states is not None
    return cache.states.nbytes + span.nbytes_of_states  # and those that a forward computes


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_needs_of_what_is_refused_later_are_no_error(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].save(tmp_path)
    assert MemoryNeeds.of(Checkpoint.open(str(tmp_path)), torch.float32, CPU).cached(0, LAYERS) > 0


def test_a_batch_takes_the_experts_that_its_tokens_choose(tmp_path: Path) -> None:
    """Not all that a layer has."""
    few, many = (
        Architecture("qwen3_moe", {"num_experts": experts, "num_experts_per_tok": 2})
        for experts in (16, 64)
    )
    needs = []
    for architecture, folder in ((few, tmp_path / "few"), (many, tmp_path / "many")):
        architecture.save(folder)
        needs.append(MemoryNeeds.of(Checkpoint.open(str(folder)), torch.float32, CPU))
    assert needs[1].layer_bytes[0] > 3 * needs[0].layer_bytes[0]
    assert needs[1].batch_bytes == needs[0].batch_bytes


def test_so_many_layers_fit_wherever_they_lie() -> None:
    cache = 4096 * 100
    assert room(5 * MB + 3 * 10 * MB + 3 * cache + 2 * MB).capacity() == 3
    assert room(5 * MB + 3 * 10 * MB + 3 * cache + 2 * MB - 1).capacity() == 2
    assert room(1000 * MB).capacity() == 8


def test_a_heavier_layer_anywhere_counts() -> None:
    needs = MemoryNeeds(**{**vars(NEEDS), "layer_bytes": (10 * MB,) * 7 + (100 * MB,)})
    with pytest.raises(DoesNotFit):
        room(60 * MB, needs=needs).capacity()


def test_what_does_not_fit_is_refused_with_numbers() -> None:
    with pytest.raises(DoesNotFit) as caught:
        room(40 * MB).check((2, 8))
    error = caught.value
    assert (error.layers, error.has_bytes, error.capacity) == ((2, 8), 40 * MB, 3)
    assert error.needs_bytes == 60 * MB + 6 * 4096 * 100 + 2 * MB
    assert "layers 2:8 of model need 67 MB" in str(error)
    assert "cpu has 42 MB" in str(error)
    assert "--layers 2:5" in str(error)


def test_not_a_single_layer() -> None:
    with pytest.raises(DoesNotFit) as caught:
        room(10 * MB).capacity()
    assert caught.value.layers is None
    assert "one layer of model need" in str(caught.value)
    assert "--memory" in str(caught.value)


def test_the_cache_takes_what_is_left_up_to_the_default() -> None:
    tight = room(65 * MB).tokens_beside((2, 8))
    assert 0 < tight < CACHE_TOKENS
    assert NEEDS.total(60 * MB, 600, tight) <= 65 * MB < NEEDS.total(60 * MB, 600, tight + 1)
    assert room(1000 * MB).tokens_beside((2, 8)) == CACHE_TOKENS
    assert room(1000 * MB, 77).tokens_beside((2, 8)) == 77


def test_a_cache_that_was_asked_for_does_not_shrink() -> None:
    room(65 * MB).check((2, 8))
    with pytest.raises(DoesNotFit):
        room(65 * MB, CACHE_TOKENS).check((2, 8))


def test_two_spans_at_a_time_need_memory_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    served, cache = room(50 * MB, 1000), 2 * 1000 * 100
    for free, both in ((21 * MB + cache + 2 * MB, True), (21 * MB + cache + 2 * MB - 1, False)):
        monkeypatch.setattr(DeviceMemory, "free", lambda self, held, free=free: free)
        assert served.takes_also((2, 4), (4, 6)) is both


def test_what_the_owner_gives_is_a_bound() -> None:
    assert DeviceMemory(CPU, 3 * MB).free() == 3 * MB
    assert DeviceMemory(CPU, 3 * MB).free(held=MB) == 2 * MB
    assert DeviceMemory(CPU, 3 * MB).free(held=4 * MB) == 0
    assert 0 < DeviceMemory(CPU).free() < free_bytes(CPU)


def test_the_head_is_held_beside_the_last_layer_where_there_is_room() -> None:
    first, last = (0, 8), (4, 8)
    weights = 4 * 10 * MB + 2 * MB  # with what a batch takes
    with_cache = weights + 4 * 4096 * 100
    for spare, held in ((7 * MB - 1, False), (7 * MB, True)):
        some = replace(room(with_cache + spare), head=None)
        assert some.takes_head(last) == held
        assert not some.takes_head((0, 4))
        assert some.tokens_beside(last) == room(with_cache + spare * (not held)).tokens_beside(last)
    assert not room(1 << 40).takes_head(first)
    assert replace(room(0), head=True).takes_head(last)
