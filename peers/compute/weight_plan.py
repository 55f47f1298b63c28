"""How much memory the weights of layers take: kept, while they are loaded, and while used."""

from dataclasses import dataclass

import torch

from swarm.model.anatomy import Anatomy
from swarm.model.checkpoint import Checkpoint
from swarm.model.fit import check_fit
from swarm.model.stored.forms import CHUNK, GPU_CHUNK

FLOAT_BYTES = 4
# Of each published weight while it is widened: codes, float32, and the dtype of the computation.
WIDENING_BYTES = 16
MOST_WIDENED = {"cpu": 8 * CHUNK, "cuda": GPU_CHUNK}  # at a time; rows of blocks are wide


@dataclass(frozen=True)
class WeightPlan:
    """Bytes of the weights of one model.

    Attributes:
        layer_bytes: of each layer, as it is kept.
        loading_bytes: besides these, while they are loaded.
        widening_bytes: of the matrix that is made as wide as what is computed with it, one at a
            time.
    """

    layer_bytes: tuple[int, ...]
    loading_bytes: int
    widening_bytes: int

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, anatomy: Anatomy, dtype: torch.dtype, device: torch.device
    ) -> "WeightPlan":
        """Work out from the shapes of a model. Raise UnsupportedModel."""
        packing = check_fit(checkpoint, anatomy) if checkpoint.is_packed else None
        size = dtype.itemsize
        plain = [numel * size for numel in anatomy.layer_numel]
        if packing is not None:
            widest = min(packing.largest, MOST_WIDENED.get(device.type, packing.largest))
            packed = (nbytes - numel * size for numel, nbytes in packing.layers)
            return cls(
                tuple(map(sum, zip(plain, packed, strict=True))),
                packing.largest_plain * FLOAT_BYTES,
                widest * WIDENING_BYTES,
            )
        largest = anatomy.largest_numel * FLOAT_BYTES
        quantization = checkpoint.quantization
        if quantization is None:
            return cls(tuple(plain), largest, 0)
        narrowed = (
            sum(quantization.nbytes(shape) - shape[0] * shape[1] * size for shape in linears)
            for linears in anatomy.layer_linears
        )
        widest = max(rows * columns for each in anatomy.layer_linears for rows, columns in each)
        return cls(
            tuple(map(sum, zip(plain, narrowed, strict=True))),
            max(largest, widest * quantization.scratch_bytes),
            widest * size,
        )
