"""Which drafters a request gets: the draft model, a lookup in the text, both, or none."""

from collections.abc import Collection

from swarm.client.models import ClientModels
from swarm.decoding.drafting.drafter import Drafter, Source
from swarm.decoding.drafting.lookup import LookupDrafter
from swarm.outputs import DrafterKind
from swarm.request import Request

# Tokens that have to match for a lookup that was not requested, without a draft model. In novel
# texts of SmolLM2-135M it finds a match at 9 % of the positions; 60 % of these are right
# (docs/verification.md).
LEAST_MATCH = 3
MOST_MATCH = 6


def make_drafters(models: ClientModels, request: Request) -> dict[Source, Drafter]:
    """Return the drafters of one text, by their source, the cheapest first.

    A lookup costs the client nothing, and the peers positions where it is wrong, so one that was
    not requested needs a longer match.
    """
    if request.window == 0:
        return {}
    stop_ids = request.stop_ids(models.checkpoint)
    drafters: dict[Source, Drafter] = {}
    if request.lookup:
        drafters[Source.COPY] = LookupDrafter(2, MOST_MATCH, stop_ids)
    elif request.lookup is None and models.draft is None:
        drafters[Source.COPY] = LookupDrafter(LEAST_MATCH, MOST_MATCH, stop_ids)
    if models.draft is not None:
        drafter = models.draft.drafter(request.sampling, request.shaping, stop_ids)
        drafters[models.draft.source] = drafter
    return drafters


def kind_of(sources: Collection[Source]) -> DrafterKind | None:
    """Return what drafts that come from these sources are called."""
    if not sources:
        return None
    if Source.FEATURES in sources:
        return "lookup and head" if Source.COPY in sources else "head"
    if Source.COPY not in sources:
        return "model"
    return "lookup" if len(sources) == 1 else "lookup and model"
