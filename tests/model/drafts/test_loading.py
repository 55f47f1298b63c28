"""Draft models in the dtype that is asked for, and what becomes of those that do not work in it."""

import logging
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from helpers.models import ARCHITECTURES, VOCAB
from swarm.errors import UnsupportedModel
from swarm.model.compute import ComputeOptions
from swarm.model.drafts import loading as module
from swarm.model.drafts.loading import branching_of, load_draft
from swarm.model.kernels.int8_linear import store_in_int8


@pytest.fixture
def saved(tmp_path: Path) -> PreTrainedModel:
    return ARCHITECTURES["llama_tied"].save(tmp_path)


@pytest.fixture
def folder(saved: PreTrainedModel, tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def weights(saved: PreTrainedModel) -> int:
    return saved.num_parameters()  # the shared ones once


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("auto", torch.float32),  # it is small
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("int8", torch.bfloat16),  # the embedding
    ],
)
def test_a_draft_is_read_into_its_dtype(
    dtype: str, stored: torch.dtype, folder: str, weights: int
) -> None:
    loaded = load_draft(folder, ComputeOptions(device="cpu", draft_dtype=dtype))
    model = loaded.model
    assert loaded.dtype == ("float32" if dtype == "auto" else dtype)
    assert loaded.weights == weights
    assert model.get_input_embeddings().weight.dtype == stored
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_keys_and_values_are_rounded_where_weights_are_and_it_is_faster(
    dtype: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fastest_cache_dtype", lambda: torch.bfloat16)
    branching = branching_of(load_draft(folder, ComputeOptions(device="cpu", draft_dtype=dtype)))
    assert branching is not None
    assert branching.cache_dtype == (torch.bfloat16 if dtype == "int8" else None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_its_head_computes_the_rows_that_are_chosen(dtype: str, folder: str) -> None:
    asked: list[int] = []
    rows = torch.arange(3, 40)

    def choose(head_rows: int) -> torch.Tensor:
        asked.append(head_rows)
        return rows

    options = ComputeOptions(device="cpu", draft_dtype=dtype)
    whole, reduced = load_draft(folder, options), load_draft(folder, options, choose)
    assert (asked, whole.vocab, whole.rows) == ([VOCAB], VOCAB, None)
    assert reduced.vocab == len(rows)
    assert reduced.rows is rows
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        expected = whole.model(input_ids=ids).logits[..., rows].float()
        logits = reduced.model(input_ids=ids).logits.float()
    close = 1e-5 if dtype == "float32" else 0.1
    torch.testing.assert_close(logits, expected, atol=close, rtol=close)


def breaks(model: PreTrainedModel) -> None:
    raise RuntimeError("no kernel")


def forgets(model: PreTrainedModel) -> None:
    store_in_int8(model)
    model.get_input_embeddings().weight.data.zero_()


@pytest.mark.parametrize("fault", [breaks, forgets])
def test_a_model_that_does_not_work_in_int8_is_refused_or_drafts_in_bfloat16(
    fault, folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "store_in_int8", fault)
    with pytest.raises(UnsupportedModel, match="does not work in int8"):
        load_draft(folder, ComputeOptions(device="cpu", draft_dtype="int8"))
    monkeypatch.setattr("swarm.model.drafts.dtype.SMALL_WEIGHTS", 0)
    monkeypatch.setattr("swarm.model.drafts.dtype.fastest_on_cpu", lambda columns: "int8")
    with caplog.at_level(logging.INFO, logger=module.__name__):
        loaded = load_draft(folder, ComputeOptions(device="cpu"))
    assert loaded.dtype == "bfloat16"
    assert loaded.model.dtype == torch.bfloat16
    assert "drafts in bfloat16 instead" in caplog.text
