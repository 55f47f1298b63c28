"""What a client holds of the models: tokenizer, final norm and LM head of the target, and a whole draft model."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from swarm.decoding.draft import ModelDrafter
from swarm.decoding.sampling import Sampling
from swarm.errors import ModelNotFound, SwarmError
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head


class DraftMismatch(SwarmError):
    """The draft model speaks another vocabulary than the target."""

    def __init__(self, draft: str, target: str) -> None:
        super().__init__(draft, target)
        self.draft, self.target = draft, target

    def __str__(self) -> str:
        return (
            f"{self.draft} cannot draft for {self.target}: their vocabularies differ; "
            "give a draft model of the same family, or --draft none"
        )


@dataclass(frozen=True)
class DraftModel:
    """A small causal language model, shared by all generations of a client."""

    model: PreTrainedModel
    vocab_size: int  # of the target: what the draft's head has beyond is padding

    @classmethod
    def load(cls, name: str, target: Checkpoint, tokenizer: PreTrainedTokenizerBase) -> "DraftModel":
        """Load a draft model (local folder or hub id) whole.

        Raises:
            ModelNotFound: if there is no such model.
            DraftMismatch: if its vocabulary is not the target's.
        """
        try:
            # The vocabulary first: a draft that cannot serve need not be downloaded.
            if AutoTokenizer.from_pretrained(name, trust_remote_code=False).get_vocab() != tokenizer.get_vocab():
                raise DraftMismatch(name, target.name)
            model = AutoModelForCausalLM.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelNotFound(name, f"it cannot be loaded as a draft model ({why})") from error
        return cls(model.eval(), target.vocab_size)

    def drafter(self, sampling: Sampling, stop_ids: frozenset[int]) -> ModelDrafter:
        """A drafter for one generation, with a cache of its own."""
        return ModelDrafter(self.model, sampling, self.vocab_size, stop_ids)


@dataclass(frozen=True)
class ClientModels:
    """Everything a generation computes with on the client."""

    checkpoint: Checkpoint
    tokenizer: PreTrainedTokenizerBase
    head: Head
    draft: DraftModel | None

    @classmethod
    def load(cls, model: str, draft: str | None) -> "ClientModels":
        """Raises what `Checkpoint.open`, `Head.load` and `DraftModel.load` raise."""
        checkpoint = Checkpoint.open(model)
        tokenizer = checkpoint.tokenizer()
        return cls(
            checkpoint,
            tokenizer,
            Head.load(checkpoint),
            DraftModel.load(draft, checkpoint, tokenizer) if draft else None,
        )
