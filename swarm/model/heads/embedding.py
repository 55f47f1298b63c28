"""The target's embedding and the rows of its LM head, as they lie in the checkpoint."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swarm.errors import UnsupportedModel
from swarm.model.anatomy import skeleton
from swarm.model.checkpoint import Checkpoint


class Embedding:
    """Rows of an embedding, read from the memory-mapped checkpoint: others take no memory.

    Args:
        weight: ``[tokens, hidden]``, as `Checkpoint.tensor` returns it.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Embedding":
        """Return the target's embedding of its tokens.

        Raises:
            UnsupportedModel: if the checkpoint has none by the name that its model uses.
        """
        model = skeleton(checkpoint.name, checkpoint.model_config)
        return cls(_weight_of(checkpoint, model, model.get_input_embeddings()))

    def __len__(self) -> int:
        """How many tokens it has rows for."""
        return len(self._weight)

    def rows(self, tokens: Sequence[int]) -> Tensor:
        """Return the embeddings of some tokens, ``[n, hidden]`` in the checkpoint's dtype."""
        return self._weight[torch.tensor(tokens)]


def lm_head_of(checkpoint: Checkpoint) -> Tensor:
    """Return the target's LM head ``[tokens, hidden]``, memory-mapped.

    Raises:
        UnsupportedModel: if the checkpoint has none by the name that its model uses.
    """
    model = skeleton(checkpoint.name, checkpoint.model_config)
    tied = getattr(checkpoint.model_config, "tie_word_embeddings", False)
    owner = model.get_input_embeddings() if tied else model.get_output_embeddings()
    return _weight_of(checkpoint, model, owner)


def _weight_of(checkpoint: Checkpoint, model: nn.Module, owner: nn.Module) -> Tensor:
    """Return the weight of a module of the model's skeleton.

    The checkpoint may write its name with other parts before it, or without some.
    """
    module = next((name for name, each in model.named_modules() if each is owner), "")
    parts = f"{module}.weight".split(".")
    shape = tuple(next(owner.parameters()).shape)
    for start in range(len(parts) - 1):
        ending = ".".join(parts[start:])
        named = [name for name in checkpoint.tensor_names() if f".{name}".endswith(f".{ending}")]
        for name in sorted(named, key=len):
            tensor = checkpoint.wide(name)
            if tuple(tensor.shape) == shape:
                return tensor
    problem = f"its checkpoint has no tensor {module}.weight of the shape {list(shape)}"
    raise UnsupportedModel(checkpoint.name, problem)
