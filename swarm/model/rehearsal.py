"""A miniature goes all the way from token ids to logits before a model is served or used.

This checks that spans and head together do everything that the model does before, between or behind
its layers. The library runs a miniature of random weights whole; then two spans and a head run it,
handing on behind every layer; the logits must be equal. Then its spans check that they do the same
in chunks as in one piece, as real ones do on loading. So a class that cannot be served is known
before a network is entered. The rehearsal takes a third of a second on one core, and is not
repeated for a configuration that has passed.
"""

import copy
import json
import logging
import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from swarm.errors import UnsupportedModel
from swarm.model.anatomy import MODELS_OWN_ATTENTION, Anatomy, Parts, skeleton, study, take_apart
from swarm.model.borders import find_cuts
from swarm.model.checkpoint import Checkpoint
from swarm.model.edge import QUIET, explained, reason
from swarm.model.fit import check_fit
from swarm.model.head import Head
from swarm.model.miniature import miniatures
from swarm.model.partial import Absent, cut
from swarm.model.self_check import choose_way
from swarm.model.span import Span
from swarm.model.wrapping import text_of
from swarm.routing.cuts import Cuts

IDS = torch.tensor([3, 1, 2, 1, 3])  # small ids, for small vocabularies
# In double precision, since some models make much of little noise; some only run in single.
DTYPES = (torch.float64, torch.float32)
TOLERANCE = 1e-4  # of the largest logit: float32's noise is about 1e-6, a lost norm about 1
# Parameters of one dimension (norms, biases, sinks) begin as 1 or 0, and get noise. Norms shrink:
# by large ones, a layer of random weights makes much of float noise.
GAIN = 0.5
NOISE = 0.25
MAX_NUMEL = 1 << 27  # of a miniature: half a gigabyte

log = logging.getLogger(__name__)

# What a rehearsal has found out of an `Anatomy`, by the configurations that have passed.
_passed: dict[str, dict[str, Any]] = {}
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """A miniature that has passed, and its parts, which share its weights.

    Attributes:
        whole: the miniature.
        spans: its two halves; one, where it cannot be cut.
        head: its head.
        cuts: where the model may be cut.
    """

    whole: PreTrainedModel
    spans: list[Span]
    head: Head
    cuts: Cuts


class _Inseparable(UnsupportedModel):
    """A part of the model fails without the parts before it."""


def rehearsed(checkpoint: Checkpoint) -> Anatomy:
    """Return the parts of a model, checked to give together what the whole model gives.

    Raises:
        UnsupportedModel: if the checkpoint's tensors are not those of the model, if its parts give
            something else, if no miniature can be made to check it, or for the reasons of `study`.
    """
    anatomy = study(checkpoint)
    check_fit(checkpoint, anatomy)
    key = json.dumps(checkpoint.model_config.to_dict(), sort_keys=True, default=str)
    with _one_at_a_time, QUIET:  # random weights come from one generator for the whole process
        if key not in _passed:
            passed = rehearse(checkpoint.name, checkpoint.model_config, anatomy)
            stepwise = any(span.stepwise for span in passed.spans)
            _passed[key] = {"cuts": passed.cuts, "stepwise": stepwise}
        return replace(anatomy, **_passed[key])


def rehearse(name: str, config: PreTrainedConfig, parts: Parts) -> Rehearsal:
    """Run a miniature whole, then in parts, wherever it may be cut.

    Raises UnsupportedModel if the logits differ wherever it is cut.
    """
    anywhere = Cuts.anywhere(int(text_of(config).num_hidden_layers))
    whole = _whole_that_runs(name, config, parts)
    try:
        spans, head = _checked(name, whole, parts, _anywhere(whole))
        return Rehearsal(whole, spans, head, anywhere)
    except _Inseparable as error:
        refused = error
    # Layers may hand on more than hidden states. Which do is a matter of all of them.
    whole = _whole_that_runs(name, config, parts, every_layer=True)
    with explained(lambda _: refused):
        cuts = find_cuts(_span(whole, parts, range(anywhere.model_layers)), IDS)
    if cuts is None or cuts == anywhere:
        raise refused
    return Rehearsal(whole, *_checked(name, whole, parts, cuts), cuts)


def _anywhere(whole: PreTrainedModel) -> Cuts:
    return Cuts.anywhere(int(text_of(whole.config).num_hidden_layers))


def _checked(
    name: str, whole: PreTrainedModel, parts: Parts, cuts: Cuts
) -> tuple[list[Span], Head]:
    """Return the parts of a miniature. Raise UnsupportedModel if they give other logits."""
    expected = _logits(whole)

    def inseparable(why: str) -> _Inseparable:
        return _Inseparable(name, f"its layers do not run apart from each other ({why})")

    with explained(inseparable):
        spans, head = _apart(whole, parts, cuts)
        logits = _handed_on(spans, head, cuts)
    difference = (logits - expected).abs().max() / expected.abs().max()
    if not difference <= TOLERANCE:
        why = (
            "its layers and its head, apart from each other, do not give what the whole model "
            f"gives (logits differ by {difference:.2g} of the largest one)"
        )
        raise UnsupportedModel(name, why)
    for span in spans:
        span.cuts = cuts
        choose_way(span, name)
    return spans, head


def _whole_that_runs(
    name: str, config: PreTrainedConfig, parts: Parts, every_layer: bool = False
) -> PreTrainedModel:
    """Return the smallest miniature that gives logits. Raises UnsupportedModel without one."""
    why = ""
    for miniature in miniatures(config, every_layer):
        try:
            whole = _whole(name, miniature(), parts)
        except Exception as error:  # from the model's code, with sizes that it was not made for
            why = reason(error)
            log.debug("a miniature of %s cannot be made: %s", name, why)
            continue
        for dtype in DTYPES:
            try:
                if _logits(whole.to(dtype)).isfinite().all():
                    return whole
                why = "its logits are no numbers"
            except Exception as error:  # as above
                why = reason(error)
            log.debug("a miniature of %s does not run in %s: %s", name, dtype, why)
    problem = f"no small model of its class could be made to check the way through it ({why})"
    raise UnsupportedModel(name, problem)


def _whole(name: str, config: PreTrainedConfig, parts: Parts) -> PreTrainedModel:
    """Return a whole miniature with random weights.

    Raises:
        ValueError: if it is too large, or has other parts than the model.
        Exception: any, from the model's own code.
    """
    small = skeleton(name, config)
    if sum(parameter.numel() for parameter in small.parameters()) > MAX_NUMEL:
        raise ValueError("it is still too large")
    model_class = type(small)
    found = take_apart(small, name, text_of(config))
    if found != Parts(**{field: getattr(parts, field) for field in Parts.__dataclass_fields__}):
        raise ValueError("it has other parts than the model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = copy.deepcopy(config)
        config._attn_implementation = MODELS_OWN_ATTENTION
        whole = model_class(config).eval().requires_grad_(False)
        for parameter in whole.parameters():
            if parameter.dim() < 2:
                parameter.mul_(GAIN).add_(torch.randn_like(parameter), alpha=NOISE)
            else:
                spread = parameter.shape[-1] ** -0.5
                parameter.add_(torch.randn_like(parameter), alpha=spread)
    return whole


def _logits(whole: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = whole(input_ids=IDS[None], use_cache=False).logits[0]
    return logits


def _span(whole: PreTrainedModel, parts: Parts, own: range) -> Span:
    model = _without(whole, parts, own, parts.embedding if own.start == 0 else ())
    return Span(model, parts.decoder, parts.layers, own.start, own.stop, text_of(model.config))


def _apart(whole: PreTrainedModel, parts: Parts, cuts: Cuts) -> tuple[list[Span], Head]:
    """Return the model as two spans (one if it cannot be cut) and a head."""
    middle = min(cuts.borders[1:], key=lambda place: abs(2 * place - cuts.model_layers - 1))
    ends = filter(None, (range(middle), range(middle, cuts.model_layers)))
    spans = [_span(whole, parts, own) for own in ends]
    behind = parts.head if parts.tied is None else (*parts.head, parts.tied)
    return spans, Head(_without(whole, parts, range(0), behind), parts)


def _handed_on(spans: list[Span], head: Head, cuts: Cuts) -> torch.Tensor:
    """Return the logits of `IDS`, handed on wherever the model may be cut."""
    values = IDS
    for span in spans:
        for first, last in pairwise(cuts.borders):
            if span.first <= first < span.last:
                values = span.once(values, first, last)
    return head.logits(values)


def _without(
    whole: PreTrainedModel, parts: Parts, layers: range, modules: tuple[str, ...]
) -> PreTrainedModel:
    """Return a copy with only these layers and modules, which shares the weights."""
    memo: dict[int, Any] = {id(each): each for each in whole.parameters()}
    for index, layer in enumerate(whole.get_submodule(parts.layers).children()):
        if index not in layers:
            memo[id(layer)] = Absent(layer)  # instead of a copy, which would take the most time
    copied = copy.deepcopy(whole, memo)
    cut(copied, parts, layers, modules)
    return copied
