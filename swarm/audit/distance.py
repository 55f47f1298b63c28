"""How far two answers to the same tokens are from each other."""

from torch import Tensor

TINY = 1e-12


def distances(one: Tensor, other: Tensor) -> Tensor:
    """The relative L2 distance at each position, float32 ``[n]``: ``|a - b| / max(|a|, |b|)``, from
    0 to 2.

    Args:
        one, other: ``[n, hidden]`` behind the final norm, where the few huge channels that raw
            hidden states have do not hide what the others say.
    """
    one, other = one.float(), other.float()
    size = one.norm(dim=1).maximum(other.norm(dim=1)).clamp_min(TINY)
    apart: Tensor = (one - other).norm(dim=1) / size
    return apart
