"""Which kind of draft a name means: a model of its own, or a head that reads hidden states."""

from transformers import PreTrainedTokenizerBase

from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.drafts.draft import DraftModel
from swarm.model.folder import look, path_of
from swarm.model.heads.loading import MTP, FeatureDraft, load_head
from swarm.model.heads.mtp import find_mtp
from swarm.model.source import check_on_hub

Draft = DraftModel | FeatureDraft


def find_draft(name: str, target: Checkpoint) -> None:
    """Check that there is a draft of this name for a target, before anything is loaded.

    Raises:
        ModelNotFound, DamagedModel, UnsupportedModel: if there is none.
    """
    if name == MTP:
        find_mtp(target)
        return
    look(name, draft=True)
    if path_of(name) is None:
        check_on_hub(name)


def load_any_draft(
    name: str, target: Checkpoint, tokenizer: PreTrainedTokenizerBase, options: ComputeOptions
) -> Draft:
    """Load what a name means as a draft: a local folder, a hub id, or ``mtp``.

    Args:
        tokenizer: of the target.

    Raises:
        ModelNotFound, DamagedModel, UnsupportedModel, NoSuchDevice, ConfigError, DraftMismatch: see
            `DraftModel.load` and `load_head`.
    """
    head = load_head(name, target, tokenizer, options)
    return DraftModel.load(name, target, tokenizer, options) if head is None else head
