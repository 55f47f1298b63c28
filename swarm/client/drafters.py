"""Which drafter a request gets: the draft model, a lookup in the text, both, or none."""

from swarm.client.models import ClientModels
from swarm.decoding.drafting.combined import Cascade
from swarm.decoding.drafting.drafter import Drafter
from swarm.decoding.drafting.lookup import LookupDrafter
from swarm.outputs import DrafterKind
from swarm.request import Request

# Tokens that have to match for a lookup that was not requested, without a draft model. In novel
# texts of SmolLM2-135M it finds a match at 9 % of the positions; 60 % of these are right
# (docs/verification.md).
LEAST_MATCH = 3
MOST_MATCH = 6
SURE_MATCH = 6  # tokens that have to match for a lookup to be preferred to a draft model


def make_drafter(models: ClientModels, request: Request) -> Drafter | None:
    """Return the drafter: the draft model, a lookup, both, or none.

    With both, the lookup goes first where a longer match makes it likely. A lookup costs the client
    nothing, and the peers positions where it is wrong, so one that was not requested needs a longer
    match.
    """
    stop_ids = request.stop_ids(models.checkpoint)
    if request.window == 0:
        return None
    if models.draft is None:
        if request.lookup is None:
            return LookupDrafter(LEAST_MATCH, MOST_MATCH, stop_ids)
        return LookupDrafter(stop_ids=stop_ids) if request.lookup else None
    drafter = models.draft.drafter(request.sampling, request.shaping, stop_ids)
    if not request.lookup:
        return drafter
    return Cascade([LookupDrafter(SURE_MATCH, SURE_MATCH, stop_ids), drafter], stop_ids)


def kind_of(drafter: Drafter | None) -> DrafterKind | None:
    """Return what a drafter that `make_drafter` returned asks."""
    if drafter is None:
        return None
    if isinstance(drafter, Cascade):
        return "lookup and model"
    return "lookup" if isinstance(drafter, LookupDrafter) else "model"
