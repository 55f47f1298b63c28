"""How much memory a span needs, before any of it is loaded, and how much there is."""

from bisect import bisect_right
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from peers.compute.cache_budget import CacheBudget
from peers.compute.free_memory import free_bytes
from peers.compute.history import HISTORY_BYTES
from peers.compute.scheduler import MAX_BATCH_TOKENS
from peers.compute.weight_plan import FLOAT_BYTES, WeightPlan
from swarm.errors import LocalError
from swarm.model.anatomy import study
from swarm.model.checkpoint import Checkpoint
from swarm.model.recurrent.sizes import state_bytes
from swarm.model.recurrent.states import MAX_SNAPSHOTS
from swarm.model.row_widths import RowWidths
from swarm.routing.placement import Span
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.tensors import MAX_FRAME_TOKENS
from swarm.wire.token_tree import MAX_TAIL

CACHE_TOKENS = 65_536  # by default, where there is room
# a long conversation: a peer without room for one, or for the model's context, is of no use
SESSION_TOKENS = 8_192
# share of free memory that stays free: allocators round up, and other programs grow
MARGIN = 0.1
# What the process needs besides: libp2p's daemon, links and buffers; on a GPU, kernels that are
# loaded at first use.
OVERHEAD_BYTES = {"cpu": 150 << 20, "cuda": 512 << 20}


@dataclass(eq=False)
class DoesNotFit(LocalError):
    """A span needs more memory than there is.

    Attributes:
        layers: that were asked for; None for any one layer.
        capacity: how many layers would fit.
    """

    layers: Span | None
    model: str
    device: str
    needs_bytes: int
    has_bytes: int
    capacity: int

    def __str__(self) -> str:
        what = f"layers {self.layers[0]}:{self.layers[1]}" if self.layers else "one layer"
        numbers = (
            f"{what} of {self.model} need {in_words(self.needs_bytes)} of memory with their cache, "
            f"and {self.device} has {in_words(self.has_bytes)} for them"
        )
        if self.layers and self.capacity:
            first = self.layers[0]
            return (
                f"{numbers}; {self.capacity} would fit, such as --layers"
                f" {first}:{first + self.capacity}"
            )
        return (
            f"{numbers}; free some, raise --memory if you have set it, or give fewer --cache-tokens"
        )


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that parts of one model need on one device."""

    layer_bytes: tuple[int, ...]  # weights, by layer
    entry_bytes: int  # weights before the first layer
    loading_bytes: int  # besides the weights, while they are loaded
    cache_bytes: tuple[int, ...]  # what a layer keeps of one token, by layer
    # of one token that was sent on and may be sent again; 0 if that lies in another memory
    kept_bytes: int
    batch_bytes: int  # activations of the largest batch
    # of attention in the largest batch, for each position of the longest session
    position_bytes: int
    context: int  # positions that a session may have
    head_bytes: int  # final norm and LM head, if the peer holds them
    input_bytes: int = 0  # of a layer, for one token
    # of recurrent layers, in one session: its states at one row, by layer; none if empty
    state_bytes: tuple[int, ...] = ()
    # inputs of the rows that it may have to compute again; 0 if they lie in another memory
    replayed_bytes: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> "MemoryNeeds":
        """Work out from the model's skeleton and configuration. Raise UnsupportedModel."""
        config, anatomy, size = checkpoint.config, study(checkpoint), dtype.itemsize
        plan = WeightPlan.of(checkpoint, anatomy, dtype, device)
        # without any it is refused when it is loaded
        heads = int(getattr(config, "num_attention_heads", None) or 1)
        kv_heads = _kv_heads(config, heads)
        widths = RowWidths.of(checkpoint)
        likely_width = 2 * kv_heads * _head_dim(checkpoint, heads)
        inner = max(
            checkpoint.hidden_size,
            # no module is wider than all weights together
            anatomy.widest or max(anatomy.layer_numel) // checkpoint.hidden_size // 3,
        )
        by_hand = anatomy.sinks or bool(getattr(config, "attn_logit_softcapping", None))
        rows = MAX_FRAME_TOKENS * heads
        shared = 1 if widths.expanded else kv_heads  # heads that attend to one latent share a mask
        indexing = int(getattr(config, "index_n_heads", None) or 0)  # heads that choose rows
        return cls(
            layer_bytes=plan.layer_bytes,
            entry_bytes=anatomy.embedding_numel * size,
            loading_bytes=plan.loading_bytes,
            cache_bytes=tuple(
                (likely_width if width is None else width) * size for width in widths.cached
            ),
            kept_bytes=0 if device.type == "cuda" else checkpoint.hidden_size * size,
            batch_bytes=MAX_BATCH_TOKENS * (8 * checkpoint.hidden_size + 3 * inner) * FLOAT_BYTES
            + plan.widening_bytes,
            # Scores that are worked out by hand, one by one, are there several times over; else
            # only the mask is, and what is expanded from latents, in three pieces.
            position_bytes=(rows * 3 * FLOAT_BYTES if by_hand else rows // shared * (size + 1))
            + 3 * widths.expanded * size
            + 2 * MAX_FRAME_TOKENS * indexing * FLOAT_BYTES,
            context=min(checkpoint.max_positions or MAX_SESSION_TOKENS, MAX_SESSION_TOKENS),
            input_bytes=checkpoint.hidden_size * size,
            head_bytes=(checkpoint.vocab_size + 1) * checkpoint.hidden_size * FLOAT_BYTES,
            state_bytes=state_bytes(checkpoint.name, checkpoint.model_config, anatomy, dtype),
            replayed_bytes=(
                0 if device.type == "cuda" else MAX_TAIL * checkpoint.hidden_size * size
            ),
        )

    def weights(self, first: int, last: int) -> int:
        """Return the bytes of the layers [first, last), with what precedes the model's first."""
        return sum(self.layer_bytes[first:last]) + (self.entry_bytes if first == 0 else 0)

    def cached(self, first: int, last: int) -> int:
        """Return the bytes that the layers [first, last) keep of one token.

        A token of recurrent layers alone, of which nothing is kept, counts as its input.
        """
        keys = sum(self.cache_bytes[first:last])
        return max(keys, self.input_bytes if self.states(first, last) else 1)

    def states(self, first: int, last: int) -> int:
        """Return the bytes that the layers [first, last) keep of one session, however long."""
        each = sum(self.state_bytes[first:last])
        return each * (MAX_SNAPSHOTS + 1) + self.replayed_bytes if each else 0

    def total(self, weights: int, cached: int, cache_tokens: int, states: int = 0) -> int:
        """Return the bytes that layers need at most.

        Args:
            weights: their bytes.
            cached: the bytes that they keep of one token.
            states: the bytes that they keep of one session besides.
        """
        kept = min(cache_tokens * self.kept_bytes, HISTORY_BYTES)
        attention = min(cache_tokens, self.context) * self.position_bytes
        sessions = sessions_of(cache_tokens) * states
        serving = cache_tokens * cached + sessions + kept + self.batch_bytes + attention
        return weights + max(serving, self.loading_bytes)

    def capacity(self, has_bytes: int, cache_tokens: int) -> int:
        """Return how many consecutive layers fit, wherever they lie in the model."""
        count = len(self.layer_bytes)
        for layers in range(1, count + 1):
            spans = [(i, i + layers) for i in range(count - layers + 1)]
            heaviest = max(sum(self.layer_bytes[first:last]) for first, last in spans)
            cached = max(self.cached(*span) for span in spans)
            states = max(self.states(*span) for span in spans)
            if self.total(heaviest + self.entry_bytes, cached, cache_tokens, states) > has_bytes:
                return layers - 1
        return count


@dataclass(frozen=True)
class DeviceMemory:
    """The part of a device's memory that this process may use.

    Attributes:
        bound: bytes that the owner allows; None for all that is free.
    """

    device: torch.device
    bound: int | None = None

    def free(self, held: int = 0) -> int:
        """Return the bytes that are free for layers, caches and activations.

        Args:
            held: bytes that this process uses for such already.
        """
        free = int(free_bytes(self.device) * (1 - MARGIN)) - OVERHEAD_BYTES.get(self.device.type, 0)
        return max(0, free if self.bound is None else min(free, self.bound - held))


@dataclass(frozen=True)
class MemoryBudget:
    """Which layers of one model, and how much cache, fit on a device.

    Attributes:
        has_bytes: free before anything was loaded; what the head needs is left out, if it was
            asked for.
        cache_tokens: that were asked for; None for as many as there is room for.
        head: whether to hold the model's head where the layers end the model; None where there is
            room.
    """

    model: str
    memory: DeviceMemory
    needs: MemoryNeeds
    has_bytes: int
    cache_tokens: int | None
    head: bool | None = False

    @classmethod
    def measure(
        cls,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        memory: DeviceMemory,
        cache_tokens: int | None,
        head: bool | None = False,
    ) -> "MemoryBudget":
        """Measure what is free now, before anything is loaded."""
        needs = MemoryNeeds.of(checkpoint, dtype, memory.device)
        free = max(0, memory.free() - (needs.head_bytes if head else 0))
        return cls(checkpoint.name, memory, needs, free, cache_tokens, head)

    @property
    def model_layers(self) -> int:
        return len(self.needs.layer_bytes)

    def capacity(self) -> int:
        """Return how many layers fit, wherever they lie. Raise `DoesNotFit` if none does."""
        capacity = self.needs.capacity(self.has_bytes, self._least_tokens)
        if not capacity:
            weights = max(self.needs.layer_bytes) + self.needs.entry_bytes
            each = [(layer, layer + 1) for layer in range(self.model_layers)]
            cached = max(self.needs.cached(*layer) for layer in each)
            states = max(self.needs.states(*layer) for layer in each)
            wanted = self.needs.total(weights, cached, self._least_tokens, states)
            raise self._too_small(None, wanted, 0)
        return capacity

    def check(self, layers: Span) -> None:
        """Raise `DoesNotFit` if there is no room for these layers."""
        wanted = self._total(layers, self._least_tokens)
        if wanted > self.has_bytes:
            first, last = layers
            fit = next(
                (n for n in range(last - first - 1, 0, -1) if self._fits((first, first + n))), 0
            )
            raise self._too_small(layers, wanted, fit)

    def tokens_beside(self, layers: Span) -> int:
        """Return the tokens of cache beside these layers: as asked for, or up to the default."""
        if self.cache_tokens is not None:
            return self.cache_tokens
        counts = range(CACHE_TOKENS + 1)
        beside = self.needs.head_bytes if self.head is None and self.takes_head(layers) else 0
        fitting = bisect_right(
            counts, self.has_bytes - beside, key=lambda tokens: self._total(layers, tokens)
        )
        return max(fitting - 1, 1)

    def cache_budget(self, layers: Span) -> CacheBudget:
        """Return the cache that sessions share beside these layers.

        Where layers keep states, a session costs the tokens that would take as much memory as these
        do, besides its own.
        """
        tokens = self.tokens_beside(layers)
        states = -(-self.needs.states(*layers) // self.needs.cached(*layers))
        return CacheBudget(tokens + sessions_of(tokens) * states, session_tokens=states)

    def takes_head(self, layers: Span) -> bool:
        """Whether the model's head is held beside these layers: they end the model, and it fits."""
        if layers[1] != self.model_layers or self.head is not None:
            return layers[1] == self.model_layers and bool(self.head)
        total = self._total(layers, self._least_tokens) + self.needs.head_bytes
        return total <= self.has_bytes

    def takes_also(self, layers: Span, served: Span) -> bool:
        """Whether these layers can be loaded while others, with all their cache, are served."""
        held = self.needs.weights(*served)
        # sessions may take it while layers are loaded
        unused = self._total(served, self.tokens_beside(served)) - held
        head = self.needs.head_bytes if self.takes_head(layers) else 0
        wanted = self.needs.weights(*layers) + self.needs.loading_bytes + head
        return wanted + unused <= self.memory.free(held)

    def ran_out(self, layers: Span) -> DoesNotFit:
        """Return the error for layers that should have fit and did not."""
        return self._too_small(layers, self._total(layers, self._least_tokens), 0)

    @property
    def _least_tokens(self) -> int:
        return (
            min(self.needs.context, SESSION_TOKENS)
            if self.cache_tokens is None
            else self.cache_tokens
        )

    def _fits(self, layers: Span) -> bool:
        return self._total(layers, self._least_tokens) <= self.has_bytes

    def _total(self, layers: Span, tokens: int) -> int:
        needs = self.needs
        cached = needs.cached(*layers)
        return needs.total(needs.weights(*layers), cached, tokens, needs.states(*layers))

    def _too_small(self, layers: Span | None, wanted: int, fit: int) -> DoesNotFit:
        return DoesNotFit(layers, self.model, str(self.memory.device), wanted, self.has_bytes, fit)


def sessions_of(cache_tokens: int) -> int:
    """Return for how many sessions with states there is to be room beside so many tokens."""
    return max(1, cache_tokens // SESSION_TOKENS)


def _kv_heads(config: PreTrainedConfig, heads: int) -> int:
    """Return how many heads of keys and values a layer has: the fewest that any layer has."""
    name = "num_key_value_heads"
    # A configuration file may hold what its model does not know.
    if name not in type(config)().to_dict():
        return heads
    named = config.to_dict()  # layers may differ, and then the configuration's attribute raises
    layers = named.get("per_layer_config") or {}
    found = [named.get(name), *(each.get(name) for each in layers.values())]
    return min((int(each) for each in found if each), default=heads)


def _head_dim(checkpoint: Checkpoint, heads: int) -> int:
    """Return the width of keys and values: the largest that the configuration names.

    Models give it different names.
    """
    named = checkpoint.config.to_dict().items()
    sizes = [value for name, value in named if name.endswith("head_dim") and isinstance(value, int)]
    return max(sizes, default=0) or checkpoint.hidden_size // heads


def in_words(nbytes: int) -> str:
    """Return an amount of memory such as ``3.2 GB``."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
