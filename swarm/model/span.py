"""A span: some consecutive decoder layers, run for many sessions at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from swarm.errors import SpanError, UnsupportedModel
from swarm.model.anatomy import MODELS_OWN_ATTENTION, narrow
from swarm.model.attention import PACKED, running
from swarm.model.cache import KVCache, PackedCache
from swarm.model.checkpoint import Checkpoint
from swarm.model.device import upload
from swarm.model.masks import NotPackable, View
from swarm.model.partial import build
from swarm.model.quantization import weight_bytes
from swarm.wire.messages import MAX_SESSION_TOKENS
from swarm.wire.token_tree import Placement

CHECK_TOKENS = 6  # enough for two chunks and a neighbour
# of the self-check in float32, relative: float noise is far below, wrong masks are far above
TOLERANCE = 1e-3
ROUGH_TOLERANCE = 0.1  # in 16 bits, where two right ways of attending differ visibly
# these turn all of a row by its largest position
LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})


@dataclass(frozen=True, eq=False)
class Work:
    """Tokens of one session for one forward, and where they go in its cache.

    `inputs` is LongTensor [n] of token ids where layer 0 is entered, else Tensor [n, hidden].
    """

    cache: KVCache
    inputs: torch.Tensor
    placement: Placement

    @classmethod
    def behind(cls, cache: KVCache, inputs: torch.Tensor) -> "Work":
        """Tokens that follow, one after the other, everything that the cache holds."""
        start = cache.length
        positions = tuple(range(start, start + inputs.shape[0]))
        return cls(cache, inputs, Placement(start, (), positions, trunk=start, sees=None))


@dataclass(frozen=True)
class _Route:
    """The layers of one sub-range as the decoder's forward wants them."""

    first: int
    last: int
    layers: nn.ModuleList
    config: Any


class Span:
    """The layers [first, last) of a model; a smaller model.

    Make one with `Span.load`; one thread at a time.

    Attributes:
        packs: whether sessions share one forward. If not, `forward` does the same, one after
            another.
        branches: whether a token may have several continuations. Without, each token sees all
            before it.
        nbytes: memory of the weights. nbytes_per_token: memory of one cached position in all
            layers.
    """

    def __init__(
        self, model: nn.Module, decoder: str, layers: str, first: int, last: int, config: Any
    ) -> None:
        self.first = first
        self.last = last
        self.hidden_size = int(config.hidden_size)
        self.vocab_size = int(config.vocab_size)
        parameter = next(model.parameters())
        self.dtype = next(
            (p.dtype for p in model.parameters() if p.is_floating_point()), parameter.dtype
        )
        self.device = parameter.device
        self.nbytes = weight_bytes(model)
        self.nbytes_per_token = 0
        self.packs = True
        self._decoder: Any = model.get_submodule(decoder)
        self._config: Any = self._decoder.config
        self._layers_name = layers.rpartition(".")[2]
        self._layers: Any = model.get_submodule(layers)
        self._routes: dict[tuple[int, int], _Route] = {}
        self._entering = -1
        self._leaving = -1
        self._inputs: torch.Tensor | None = None
        self._output: torch.Tensor | None = None

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        first: int,
        last: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> "Span":
        """Read only the tensors of the layers [first, last), and of the embedding where first is 0;
        layers are quantized as the checkpoint says.

        Ends with a self-check on made-up inputs: chunks and neighbours must give what the model's
        own attention gives in one piece. Raises SpanError for layers that are not there,
        UnsupportedModel when the check fails, and ConfigError when this computer cannot quantize
        so.
        """
        if not 0 <= first < last <= checkpoint.num_layers:
            raise SpanError(
                first, last, f"{checkpoint.name} has the layers [0, {checkpoint.num_layers})"
            )
        from swarm.model.rehearsal import rehearsed  # which runs spans and heads itself

        anatomy = rehearsed(checkpoint)
        model = build(
            checkpoint,
            anatomy,
            layers=range(first, last),
            modules=anatomy.embedding if first == 0 else (),
            dtype=dtype,
            device=device,
            progress=progress,
        )
        span = cls(model, anatomy.decoder, anatomy.layers, first, last, checkpoint.config)
        span.choose_attention(checkpoint.name)
        return span

    @property
    def branches(self) -> bool:
        # What attends by its own code draws its own masks, and what turns a row by its largest
        # position would let one branch turn another: the same models that cannot have neighbours.
        return self.packs

    def new_cache(
        self, first: int | None = None, last: int | None = None, limit: int = MAX_SESSION_TOKENS
    ) -> KVCache:
        """An empty cache for a session that uses the layers [first, last) of this span; all of them
        by default.

        Layers that the session never runs cost nothing, but it has to run the same ones every time.
        There will be room for `limit` tokens at most.
        """
        route = self._route(first, last)
        return KVCache(route.first, route.last, limit)

    def forward(
        self, batch: Sequence[Work], first: int | None = None, last: int | None = None
    ) -> list[torch.Tensor]:
        """Run the layers [first, last) on every work: outputs [n, hidden], in order, raw from the
        last layer, on the CPU: when this returns, the device is done.

        All works share these layers. Raises SpanError, before anything is done, when a work does
        not fit its cache. After any other failure the same works may be tried again.
        """
        route = self._route(first, last)
        self._check(batch, route)
        for work in batch:
            work.cache.place(work.placement)
        with torch.inference_mode():
            outputs = (
                self._run(route, batch)
                if self.packs
                else [self._run(route, [work])[0] for work in batch]
            )
        for work in batch:
            work.cache.advance(work.inputs.shape[0])
        return outputs

    def once(
        self, inputs: torch.Tensor, first: int | None = None, last: int | None = None
    ) -> torch.Tensor:
        """Run the layers [first, last) on the tokens of a whole text, [n] ids or [n, hidden] -> [n,
        hidden] on the CPU: without a cache, and by the span's attention, which must not be the
        packed one.
        """
        with torch.inference_mode():
            positions = torch.arange(len(inputs), device=self.device)
            return self._forward(self._route(first, last), inputs.to(self.device), positions, None)

    def choose_attention(self, name: str) -> None:
        """Packed attention where it gives what the model's own attention gives, else the latter,
        unpacked.

        Raises UnsupportedModel, in which the model has this ``name``, where chunks do not give what
        one piece gives.
        """
        generator = torch.Generator().manual_seed(0)
        if self.first:
            inputs = torch.randn((CHECK_TOKENS, self.hidden_size), generator=generator)
        else:
            inputs = torch.randint(self.vocab_size, (CHECK_TOKENS,), generator=generator)
        try:
            expected = self.once(inputs)
            self._attend_by(PACKED)
            why = self._differs(inputs, expected)
            if why:
                self.packs = False
                self._attend_by(MODELS_OWN_ATTENTION)
                why = self._differs(inputs, expected)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
            why = f"its layers do not run alone ({type(error).__name__}: {error})"
            raise UnsupportedModel(name, why) from error
        if why:
            raise UnsupportedModel(name, why)
        if turns_by_length(self._config):
            self.packs = False

    def _check(self, batch: Sequence[Work], route: _Route) -> None:
        shape = (self.hidden_size,) if route.first else ()
        seen: set[int] = set()
        for work in batch:
            problem = None
            if not work.cache.first <= route.first < route.last <= work.cache.last:
                problem = f"the cache is for the layers [{work.cache.first}, {work.cache.last})"
            elif not work.cache.fits(work.placement, work.inputs.shape[0]):
                problem = (
                    f"the work starts at row {work.placement.start}, its cache ends at"
                    f" {work.cache.length} and may hold {work.cache.limit}"
                )
            elif work.placement.sees is not None and not self.branches:
                problem = "tokens of this model see all before them; it takes no branches"
            elif work.inputs.shape[1:] != shape or not work.inputs.shape[0]:
                problem = (
                    f"inputs of shape {tuple(work.inputs.shape)} came instead of {('n', *shape)}"
                )
            elif work.inputs.is_floating_point() != bool(route.first):
                problem = (
                    f"layer {route.first} takes {'hidden states' if route.first else 'token ids'}"
                )
            elif id(work.cache) in seen:
                problem = "a session is in the batch twice"
            if problem:
                raise SpanError(route.first, route.last, problem)
            seen.add(id(work.cache))

    def _run(self, route: _Route, batch: Sequence[Work]) -> list[torch.Tensor]:
        # All that the device has to be told is told here: no layer waits for it.
        views = [View.of(work.placement, work.inputs.shape[0], self.device) for work in batch]
        packed = PackedCache([work.cache for work in batch], views)
        inputs = batch[0].inputs if len(batch) == 1 else torch.cat([work.inputs for work in batch])
        positions = torch.tensor(
            [position for work in batch for position in work.placement.positions]
        )
        with running(packed):
            row = self._forward(
                route, upload(inputs, self.device), upload(positions, self.device), packed
            )
        return list(row.split_with_sizes(packed.counts))

    def _forward(
        self,
        route: _Route,
        inputs: torch.Tensor,
        positions: torch.Tensor,
        packed: PackedCache | None,
    ) -> torch.Tensor:
        """The decoder's own forward over a row of inputs [total(, hidden)] -> [total, hidden] on
        the CPU."""
        decoder = self._decoder
        decoder.config = route.config
        setattr(decoder, self._layers_name, route.layers)
        # token ids enter through the embedding, hidden states at the first layer
        self._entering = route.first or -1
        self._leaving = route.last - 1
        inputs = inputs.unsqueeze(0)
        key = "input_ids"
        if route.first:
            inputs = inputs.to(self.dtype)
            key = "inputs_embeds"
        self._inputs = inputs
        try:
            decoder(
                **{key: inputs},
                position_ids=positions.unsqueeze(0),
                past_key_values=packed,
                use_cache=packed is not None,
            )
            output = self._output
        finally:
            self._inputs = self._output = None
        assert output is not None  # the last layer's hook has run
        return output[0].cpu()

    def _route(self, first: int | None, last: int | None) -> _Route:
        key = (self.first if first is None else first, self.last if last is None else last)
        route = self._routes.get(key)
        if route is None:
            if not self.first <= key[0] < key[1] <= self.last:
                raise SpanError(
                    self.first, self.last, f"the layers [{key[0]}, {key[1]}) are not all in it"
                )
            config = narrow(self._config, *key)
            config._attn_implementation = self._config._attn_implementation
            route = self._routes[key] = _Route(
                *key, nn.ModuleList(self._layers[key[0] : key[1]]), config
            )
            # Hidden states enter past the embedding stage and leave before the final norm, whatever
            # a model does in them (scaling, normalising once more): that is what makes spans exact
            # without knowing the model.
            self._tap(*key)
        return route

    def _tap(self, first: int, last: int) -> None:
        entry, exit_ = self._layers[first], self._layers[last - 1]
        if first and not getattr(entry, "_swarm_entry", False):
            entry._swarm_entry = True

            def substitute(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return ((self._inputs, *args[1:]), kwargs) if self._entering == first else None

            entry.register_forward_pre_hook(substitute, with_kwargs=True)
        if not getattr(exit_, "_swarm_exit", False):
            exit_._swarm_exit = True

            def catch(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                if self._leaving == last - 1:
                    self._output = output[0] if isinstance(output, tuple) else output

            exit_.register_forward_hook(catch)

    def _attend_by(self, implementation: str) -> None:
        self._config._attn_implementation = implementation
        self._routes.clear()

    def _differs(self, inputs: torch.Tensor, expected: torch.Tensor) -> str | None:
        """Run `inputs` in two chunks, the second beside a neighbour and, if they may be, a branch
        that loses; say what is wrong with the result, if anything.
        """
        cache, neighbour = self.new_cache(), self.new_cache()
        cut = CHECK_TOKENS * 2 // 3
        try:
            start = self.forward([Work.behind(cache, inputs[:cut])])[0]
            chunk = Work.behind(cache, inputs[cut:])
            if self.branches:
                chunk = _beside(inputs[:1], chunk)
            rest = self.forward([Work.behind(neighbour, inputs[1:cut]), chunk])[1][
                -len(inputs) + cut :
            ]
        except (
            NotPackable,
            AttributeError,
            IndexError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            if not self.packs:
                raise
            return f"it does not run packed ({error})"
        self.nbytes_per_token = cache.nbytes_per_token
        error_norm = (
            torch.cat([start, rest]).float() - expected.float()
        ).norm() / expected.float().norm()
        if not error_norm <= (TOLERANCE if self.dtype == torch.float32 else ROUGH_TOLERANCE):
            return (
                "its layers give another result in chunks than in one piece (relative error"
                f" {error_norm:.2g})"
            )
        return None


def _beside(branch: torch.Tensor, work: Work) -> Work:
    """The work's tokens with one more before them, `branch` [1(, hidden)], that none of them
    sees."""
    start, positions = work.placement.start, work.placement.positions
    sees = (1, *((2 << i) - 2 for i in range(1, len(positions) + 1)))
    return Work(
        work.cache,
        torch.cat((branch, work.inputs)),
        Placement(start, (), (start, *positions), start, sees),
    )


def turns_by_length(config: Any) -> bool:
    """Whether a model's rotary embedding turns all of a row by the row's largest position."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(entry for entry in rope.values() if isinstance(entry, dict))]
    return any(kind.get("rope_type") in LENGTH_DEPENDENT_ROPE for kind in kinds)
