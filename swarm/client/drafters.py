"""Which drafters a request gets: copies of earlier text, the draft model, both, or none."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from swarm.client.models import ClientModels
from swarm.decoding.ask import Ask
from swarm.decoding.drafting.copying import CopyDrafter
from swarm.decoding.drafting.correction import CorrectedShaping, Correction
from swarm.decoding.drafting.drafter import Drafted, Drafter, Source
from swarm.decoding.drafting.earlier import EarlierTexts
from swarm.decoding.drafting.forced import ForcedDrafter, Forcing
from swarm.decoding.feature_book import FeatureBook
from swarm.decoding.shaping import Shaping
from swarm.decoding.windows import ResumePoint
from swarm.outputs import DrafterKind
from swarm.request import Request

# Without a draft model, the least chance of a copy that is worth the peers' time, unless it was
# requested. Below, texts are hardly faster, and take many more positions (docs/verification.md).
LEAST_COPY = 0.2
PREDICTED = 32  # positions of a prompt's end that a peer predicts for nothing but their states

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draft:
    """A drafter's answer to an `Ask`: a line for each of its nodes, or the error that ended it."""

    guesses: Sequence[Sequence[Drafted]] = ()
    seconds: float = 0.0
    error: str | None = None


def draft_for(ask: Ask, drafter: Drafter | None) -> Draft:
    """Draft for an `Ask`; nothing without a drafter."""
    if drafter is None:
        return Draft()
    started = time.perf_counter()
    try:
        drafter.answered(ask.text, ask.features)
        guesses = drafter.draft_each(ask.text, ask.paths, ask.count)
    except Exception as error:
        # Only guesses are missing. The result reports the error, and drafting is not retried.
        log.warning("drafting failed, going on without: %r", error)
        return Draft(error=f"{type(error).__name__}: {error}")
    return Draft(guesses, time.perf_counter() - started)


def make_drafters(
    models: ClientModels,
    request: Request,
    earlier: EarlierTexts | None = None,
    *,
    heads: bool = True,
    shaping: Shaping | None = None,
    forcing: Forcing | None = None,
) -> dict[Source, Drafter]:
    """Return the drafters of one text, by their source, the cheapest first.

    Args:
        earlier: texts that may be copied, besides the text itself.
        heads: take a head that reads the target's states.
        shaping: of this text; by default the request's.
        forcing: the constraint of the answer, if there is one.
    """
    if request.window == 0:
        return {}
    draft = models.draft
    if draft is not None and draft.source is Source.FEATURES and not heads:
        draft = None
    stop_ids = request.stop_ids(models.checkpoint)
    shaping = request.shaping if shaping is None else shaping
    drafters: dict[Source, Drafter] = {}
    if forcing is not None:
        drafters[Source.FORCED] = ForcedDrafter(forcing, shaping.prompt_tokens)
    if request.copies:
        drafters[Source.COPY] = CopyDrafter(stop_ids, earlier)
    if draft is not None:
        correction = correction_of(models, request)
        if correction is not None:
            shaping = CorrectedShaping(asked=shaping, correction=correction)
        drafters[draft.source] = draft.drafter(request.sampling, shaping, stop_ids)
    return drafters


def correction_of(models: ClientModels, request: Request) -> Correction | None:
    """Return what corrects the draft's errors and learns from this text; None if nothing does.

    Rules other than `strict` may write what was drafted: a seed would not give the same text twice.
    A head is calibrated as it is: corrected, one that is connected wrongly might pass.
    """
    head = models.draft is not None and models.draft.source is Source.FEATURES
    if head and not models.calibrations.passed:
        return None
    drafts = models.draft is not None and request.window != 0
    learns = drafts and request.learn and request.verification.name == "strict"
    if models.corrections is None or request.remembered_for is None or not learns:
        return None
    return models.corrections.of(request.remembered_for)


def head_failure(
    models: ClientModels, request: Request, tellers: frozenset[str] | None = None
) -> str | None:
    """Return why a head that reads the target's states is not to be asked; None if it may be, or
    there is none.

    Args:
        tellers: the peers that tell outputs of layers for it; None before these are known.
    """
    if models.draft is None or models.draft.source is not Source.FEATURES or request.window == 0:
        return None
    calibrations = models.calibrations
    return (calibrations.fault if tellers is None else calibrations.failure(tellers)) or None


def make_book(
    models: ClientModels,
    drafters: Mapping[Source, Drafter],
    held: ResumePoint,
    goes_on: bool,
) -> FeatureBook | None:
    """Return what keeps the target's states for a drafter that reads them, if there is one.

    A client without a head is told predictions in place of the last layer's outputs. So it taps
    that layer, and has its peer predict less of the prompt.

    Args:
        goes_on: another text may go on from this one.
    """
    reading = next((each for each in drafters.values() if each.prompt_features), None)
    if reading is None:
        return None
    count = reading.prompt_features or 0
    hidden = models.checkpoint.hidden_size
    if reading.taps or models.head is not None:
        width = hidden * max(1, len(reading.taps))
        return FeatureBook(count, held.features, reading.taps, width=width, goes_on=goes_on)
    return FeatureBook(
        min(count, PREDICTED),
        held.features,
        (models.checkpoint.num_layers - 1,),
        alone=True,
        width=hidden,
        goes_on=goes_on,
    )


def kind_of(sources: Collection[Source]) -> DrafterKind | None:
    """Return what drafts that come from these sources are called."""
    sources = set(sources) - {Source.FORCED}
    if not sources:
        return None
    if Source.FEATURES in sources:
        return "lookup and head" if Source.COPY in sources else "head"
    if Source.COPY not in sources:
        return "model"
    return "lookup" if len(sources) == 1 else "lookup and model"
