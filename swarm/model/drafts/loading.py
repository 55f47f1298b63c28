"""A draft model, read into the device and the dtype that suit it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from swarm.errors import UnsupportedModel
from swarm.model.branching import BranchingModel
from swarm.model.compute import AUTO, ComputeOptions
from swarm.model.drafts.dtype import DraftPlacement, fastest_cache_dtype, place
from swarm.model.drafts.reduced_head import keep_rows
from swarm.model.edge import reason
from swarm.model.fit import check_draft
from swarm.model.kernels.int8_linear import store_in_int8
from swarm.model.quantization import NF4
from swarm.model.whole import outline_of, read_whole, whole_config

CHECK_TOKENS = 6
ROUNDING_TOLERANCE = 0.3  # relative error of logits; models that we tried have less than 0.1

ChooseRows = Callable[[int], torch.Tensor | None]
"""Given the rows of a draft model's head, returns those that stay; None for all of them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedDraft:
    """A draft model.

    Attributes:
        dtype: the name of its weights' dtype.
        weights: how many it has.
        vocab: how many tokens its head computes.
        rows: which tokens these are, LongTensor ``[vocab]``; None for all.
    """

    model: PreTrainedModel
    dtype: str
    weights: int
    vocab: int
    rows: torch.Tensor | None


def load_draft(
    name: str, options: ComputeOptions, choose_rows: ChooseRows = lambda head_rows: None
) -> LoadedDraft:
    """Read a causal language model (folder, GGUF file, hub id), with a head of the chosen rows.

    Raises:
        NoSuchDevice: if the device is not there.
        ConfigError: if this computer cannot quantize so.
        UnsupportedModel: if weights are missing, or if the model does not work in the dtype that is
            asked for.
        Exception: what transformers raises for a model that it cannot read.
    """
    config = whole_config(name)
    outline = outline_of(config)
    weights = sum(parameter.numel() for parameter in outline.parameters())
    columns = int(config.get_text_config(decoder=True).hidden_size)
    placement = place(options, weights, columns)
    head_rows = outline.get_output_embeddings().weight.shape[0]
    rows = choose_rows(head_rows)

    def read(placement: DraftPlacement) -> LoadedDraft:
        model = _read(name, placement, outline)
        kept = rows if rows is not None and keep_rows(model, rows) else None
        if placement.dtype == "int8":
            _round(model, name)
        vocab = head_rows if kept is None else len(kept)
        return LoadedDraft(model, placement.dtype, weights, vocab, kept)

    try:
        return read(placement)
    except UnsupportedModel as error:
        if options.draft_dtype != AUTO or placement.dtype != "int8":
            raise
        log.info("%s; it drafts in bfloat16 instead", error)
        return read(DraftPlacement(placement.device, "bfloat16"))


def branching_of(draft: LoadedDraft) -> BranchingModel | None:
    """Return the model as one that reads trees, or None if it cannot.

    Where its weights are rounded, its keys and values may be, too.
    """
    rounded = draft.dtype == "int8" and draft.model.device.type == "cpu"
    return BranchingModel.of(draft.model, fastest_cache_dtype() if rounded else None)


def _read(name: str, placement: DraftPlacement, outline: PreTrainedModel) -> PreTrainedModel:
    """Read the whole model; for int8, in bfloat16."""
    more: dict[str, Any] = {}
    if placement.dtype == NF4.name:
        NF4.check(placement.device, "draft_dtype")
        head = outline.get_output_embeddings()
        kept = [each for each, module in outline.named_modules() if module is head]
        more["quantization_config"] = NF4.settings(kept, torch.bfloat16)
        more["device_map"] = {"": "cpu"}  # or the loader would choose a GPU itself
    dtype = torch.float32 if placement.dtype == "float32" else torch.bfloat16
    model, report = read_whole(name, dtype, **more)
    check_draft(name, model, report)
    model.eval().requires_grad_(False).to(placement.device)
    return model


@torch.inference_mode()
def _round(model: PreTrainedModel, name: str) -> None:
    """Store the weights in 8 bits, if the model computes nearly the same with them."""
    known = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(known, (1, CHECK_TOKENS), generator=generator).to(model.device)
    expected = model(input_ids=tokens, use_cache=False).logits.float()
    why = "its logits become others"
    try:
        store_in_int8(model)
        logits = model(input_ids=tokens, use_cache=False).logits.float()
        error = float((logits - expected).norm() / expected.norm())
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as failure:
        why = reason(failure)
        error = float("inf")
    if not error <= ROUNDING_TOLERANCE:
        problem = f"as a draft model it does not work in int8 ({why}); give another draft dtype"
        raise UnsupportedModel(name, problem)
