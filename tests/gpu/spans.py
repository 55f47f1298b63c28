"""Whether a span on a device gives what it gives on the CPU, however sessions use it."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gpu.report import Table
from gpu.sizes import Sizes
from helpers.models import ALTERNATING, VOCAB, Architecture
from swarm.errors import ConfigError
from swarm.model.checkpoint import Checkpoint
from swarm.model.quantization import INT8, NF4, Quantization
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.wire.token_tree import TokenTree

CPU = torch.device("cpu")
# Relative error of the outputs, which are sums of other orders. In bfloat16 each of them is rounded
# to 8 bits, layer after layer; libraries multiply 4-bit weights by kernels of their own.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03, "int8": 1e-3, "nf4": 2e-2}
MODELS = {
    "llama": {},
    "gemma2": {**ALTERNATING, "attn_logit_softcapping": 30.0, "sliding_window": 8},
}
QUANTIZATIONS: dict[str, Quantization] = {"int8": INT8, "nf4": NF4}


class Session:
    """A session on one span: its cache and its tree of tokens."""

    def __init__(self, span: Span) -> None:
        self.tree = TokenTree()
        self.cache = span.new_cache()

    def work(
        self, tokens: Tensor, root: int | None = None, parents: tuple[int, ...] | None = None
    ) -> Work:
        """Return tokens that follow the last one, or ``root`` in a newer epoch."""
        tree = self.tree
        epoch = tree.epoch + (root is not None)
        root = tree.root if root is None else root
        placed = tree.admit(epoch, root, tree.last + 1, len(tokens), parents)
        assert placed is not None
        return Work(self.cache, tokens, placed)


def outputs(span: Span) -> dict[str, Tensor]:
    """Return what a span computes of the same random tokens, in every way that sessions use it."""
    draw = torch.Generator().manual_seed(5)

    def tokens(count: int) -> Tensor:
        return torch.randint(3, VOCAB, (count,), generator=draw)

    one, two, three = Session(span), Session(span), Session(span)
    chunks = (7, 5, 1, 1, 1)
    alone = torch.cat([span.forward([one.work(tokens(count))])[0] for count in chunks])
    packed = span.forward([one.work(tokens(3)), two.work(tokens(9)), three.work(tokens(1))])
    # the last four tokens are void, others follow the one before them
    back = one.tree.last - 4
    rollback = span.forward([one.work(tokens(4), back, (one.tree.last + 1 - back, 1, 1, 1))])[0]
    found = {"alone": alone, "packed": torch.cat(packed), "rollback": rollback}
    if span.branches:
        # the first and the third follow the last token, the others follow these
        of_two = tokens(4), (1, 1, 3, 1)
        tree, neighbour = span.forward(
            [two.work(of_two[0], parents=of_two[1]), one.work(tokens(1))]
        )
        found["branches"] = torch.cat([tree, neighbour])
    return found


def spans_equal_the_cpus(sizes: Sizes, device: torch.device, folder: Path) -> Table:
    """Compare the outputs of a whole small model's layers on both."""
    table = Table(("model", "weights", "way", "error", "at most"))
    for model, settings in MODELS.items():
        Architecture(model, _wide(sizes, settings)).save(folder / model)
        for weights in TOLERANCES:
            try:
                loaded = _loader(str(folder / model), weights)
                expected, got = outputs(loaded(CPU)), outputs(loaded(device))
            except ConfigError as error:  # the extra is not installed
                note = f"{weights}: not checked ({error})"
                table.notes += [note] * (note not in table.notes)
                continue
            for way, tensor in got.items():
                error = relative_error(tensor, expected[way])
                passed = error <= TOLERANCES[weights]
                row = (model, weights, way, f"{error:.1e}", f"{TOLERANCES[weights]:.0e}")
                table.add(*row, passed=passed)
    return table


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, relative to that of ``expected``; NaN if it is one."""
    expected = expected.float()
    return float((got.float() - expected).norm() / expected.norm())


def _wide(sizes: Sizes, settings: dict[str, object]) -> dict[str, object]:
    wide = {"hidden_size": sizes.width, "intermediate_size": 2 * sizes.width, "head_dim": 16}
    return {**settings, **wide}


def _loader(model: str, weights: str) -> Callable[[torch.device], Span]:
    quantization = QUANTIZATIONS.get(weights)
    dtype = torch.bfloat16 if weights == "bfloat16" else torch.float32

    def load(device: torch.device) -> Span:
        if quantization is not None:
            quantization.check(device)
        checkpoint = Checkpoint.open(model, quantization)
        return Span.load(checkpoint, 0, checkpoint.num_layers, dtype=dtype, device=device)

    return load
