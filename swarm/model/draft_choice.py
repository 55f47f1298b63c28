"""Which kind of draft a name means: a model of its own, or a head that reads hidden states."""

from transformers import PreTrainedTokenizerBase

from swarm.model.checkpoint import Checkpoint
from swarm.model.compute import ComputeOptions
from swarm.model.draft import DraftModel
from swarm.model.heads.loading import FeatureDraft, load_head

Draft = DraftModel | FeatureDraft


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
