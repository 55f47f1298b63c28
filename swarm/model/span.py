"""A span: some consecutive decoder layers, run for many sessions at once."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from swarm.errors import SpanError
from swarm.model.anatomy import MODELS_OWN_ATTENTION, narrow
from swarm.model.attention import PACKED, running, running_now
from swarm.model.batch_invariance import MOST_ROWS, groups, pair_rows, rounds_visibly
from swarm.model.cache import KVCache, PackedCache, cache_argument, packed_cache_of
from swarm.model.checkpoint import Checkpoint
from swarm.model.device import upload
from swarm.model.latent import hand_on_latents
from swarm.model.masks import AttentionView, NotPackable
from swarm.model.partial import build
from swarm.model.quantization import weight_bytes
from swarm.model.recurrent.mixers import Mixers, find_mixers, may_keep_states
from swarm.model.recurrent.states import States
from swarm.model.taps import TapHooks
from swarm.model.work import Work
from swarm.routing.cuts import Cuts
from swarm.wire.fields import MAX_SESSION_TOKENS

MAX_REPLAYED = 64  # rows in front of new ones; the batch was planned for these alone
# Exceptions of a model's own code, when it runs in a way that it was not made for.
FAILURES = (AttributeError, IndexError, TypeError, ValueError, RuntimeError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpanWay:
    """How a span runs its layers.

    Attributes:
        packs: many sessions in one forward, by packed attention.
        gathers: layers get the rows of all sessions: see `PackedCache`.
        stepwise: layers that keep states read one token at a time once they have a state.
    """

    packs: bool
    gathers: bool
    stepwise: bool


@dataclass(frozen=True)
class _Route:
    """The layers of one sub-range as the decoder's forward expects them."""

    first: int
    last: int
    layers: nn.ModuleList
    config: Any


class Span:
    """The layers [first, last) of a model, as a smaller model.

    Make one with `Span.load`; use it from one thread at a time.

    Attributes:
        packs: whether sessions share one forward; if not, `forward` runs them one after another.
        why_alone: why they do not share one; empty if they do.
        recurrent: whether some layers keep states, which a text can roll back to but not cut.
        cuts: where the model may be cut: between two of these places all layers run at once.
        stepwise: whether these layers read one token at a time once they have a state.
        taps: whether it catches outputs of its layers on request.
        nbytes: memory of the weights.
        nbytes_per_token: memory of one cached position in all layers.
        nbytes_of_states: memory of all states of one session at one row.
    """

    taps = True
    recurrent = False
    nbytes_of_states = 0

    def __init__(
        self, model: nn.Module, decoder: str, layers: str, first: int, last: int, config: Any
    ) -> None:
        self.first = first
        self.last = last
        self.hidden_size = int(config.hidden_size)
        self.vocab_size = int(config.vocab_size)
        self.cuts = Cuts.anywhere(int(config.num_hidden_layers))
        parameter = next(model.parameters())
        self.dtype = next(
            (p.dtype for p in model.parameters() if p.is_floating_point()), parameter.dtype
        )
        self.device = parameter.device
        self._rounds_visibly = rounds_visibly(torch.empty(0, dtype=self.dtype, device=self.device))
        self.nbytes = weight_bytes(model)
        self.nbytes_per_token = 0
        self.packs = True
        self.why_alone = ""
        self._gathers = False  # see PackedCache; only where layers do not run packed otherwise
        self._model = model
        self._decoder: Any = model.get_submodule(decoder)
        self.config: Any = self._decoder.config
        self._packed_cache = packed_cache_of(self._decoder)
        self._cache_argument = cache_argument(self._decoder)
        self._mixers = Mixers((), running_now)
        self._layers_path = layers
        holder, _, self._layers_name = layers.rpartition(".")
        self._holder: Any = model.get_submodule(holder)  # of the layers; mostly the decoder itself
        self._layers: Any = model.get_submodule(layers)
        hand_on_latents(self._layers, PACKED)
        self._tap_hooks = TapHooks(self._layers, self.hidden_size)
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
        """Read only the tensors of the layers [first, last), and of the embedding if first is 0.

        Layers are quantized as the checkpoint says. Ends with a self-check on random inputs: chunks
        and neighbours must give what the model's own attention gives in one piece.

        Raises:
            SpanError: for layers that are not there.
            UnsupportedModel: if the check fails.
            ConfigError: if this computer cannot quantize so.
        """
        if not 0 <= first < last <= checkpoint.num_layers:
            problem = f"{checkpoint.name} has the layers [0, {checkpoint.num_layers})"
            raise SpanError(first, last, problem)
        # Both run spans themselves.
        from swarm.model.rehearsal import rehearsed
        from swarm.model.self_check import choose_way

        anatomy = rehearsed(checkpoint)
        if not anatomy.cuts.allow(first, last):
            raise SpanError(first, last, f"{checkpoint.name} can be cut {anatomy.cuts}")
        model = build(
            checkpoint,
            anatomy,
            layers=range(first, last),
            modules=anatomy.embedding if first == 0 else (),
            dtype=dtype,
            device=device,
            progress=progress,
        )
        pair_rows(model)
        span = cls(model, anatomy.decoder, anatomy.layers, first, last, checkpoint.config)
        span.cuts = anatomy.cuts
        choose_way(span, checkpoint.name, anatomy.stepwise)
        return span

    @property
    def branches(self) -> bool:
        """Whether a token may have several continuations; if not, each token sees all before it.

        The same models branch that pack: others make their own masks, or turn a row by its largest
        position, by which one branch would change another.
        """
        return self.packs and not self.recurrent

    def new_cache(
        self, first: int | None = None, last: int | None = None, limit: int = MAX_SESSION_TOKENS
    ) -> KVCache:
        """Return an empty cache for a session that runs the layers [first, last), by default all.

        It has room for at most `limit` tokens. Layers that the session never runs cost nothing, but
        it has to run the same ones every time.
        """
        route = self._route(first, last)
        states = States() if self.recurrent else None
        return KVCache(route.first, route.last, limit, states=states)

    def forward(
        self, batch: Sequence[Work], first: int | None = None, last: int | None = None
    ) -> list[torch.Tensor]:
        """Run the layers [first, last) on every work.

        The device has finished when this returns. After a failure the same works may be tried
        again.

        Returns:
            The last layer's raw outputs [n, hidden] of each work, in order, on the CPU.

        Raises:
            SpanError: if a work does not fit its cache; no work has run then.
        """
        route = self._route(first, last)
        self._check(batch, route)
        for work in batch:
            work.cache.place(work.placement)
            self._catch_up(route, work.cache)
        whole = [work.with_replay() for work in batch]
        with torch.inference_mode():
            outputs: dict[int, torch.Tensor] = {}
            for group in self._groups(whole):
                together = self._run(route, [whole[index] for index in group])
                outputs.update(zip(group, together, strict=True))
        for work in batch:
            work.cache.advance(work.inputs.shape[0], work.inputs)
        return [outputs[index][-work.inputs.shape[0] :] for index, work in enumerate(batch)]

    def once(
        self, inputs: torch.Tensor, first: int | None = None, last: int | None = None
    ) -> torch.Tensor:
        """Run the layers [first, last) on a whole text: [n] ids or [n, hidden] -> [n, hidden], CPU.

        Uses no cache. The span must not use packed attention yet.
        """
        with torch.inference_mode():
            positions = torch.arange(len(inputs), device=self.device)
            return self._forward(self._route(first, last), inputs.to(self.device), positions, None)

    @property
    def stepwise(self) -> bool:
        return self._mixers.stepwise

    def run_by(self, way: SpanWay) -> None:
        """Run the layers in this way from now on."""
        self.packs = way.packs
        self._gathers = way.gathers
        self._mixers.stepwise = way.stepwise
        self.config._attn_implementation = PACKED if way.packs else MODELS_OWN_ATTENTION
        self._routes.clear()

    def find_states(self, inputs: torch.Tensor) -> None:
        """Find the modules that keep states, and make each run on one session at a time.

        Args:
            inputs: that the layers read for it, [n(, hidden)].
        """

        def run(states: States) -> None:
            cache = KVCache(self.first, self.last, states=states)
            with suppress(NotPackable, *FAILURES):  # a check will find what that is about
                self.forward([Work.behind(cache, inputs)])

        mixers = find_mixers(self._model, self._layers_path, run, may_keep_states(self.config))
        self.recurrent = bool(mixers)
        self._mixers = Mixers(mixers, running_now)

    def _check(self, batch: Sequence[Work], route: _Route) -> None:
        shape = (self.hidden_size,) if route.first else ()
        seen: set[int] = set()
        for work in batch:
            problem = None
            if not work.cache.first <= route.first < route.last <= work.cache.last:
                problem = f"the cache is for the layers [{work.cache.first}, {work.cache.last})"
            elif not work.cache.fits(work.placement, work.inputs.shape[0]):
                cache = f"its cache ends at {work.cache.length} and may hold {work.cache.limit}"
                problem = f"the work starts at row {work.placement.start}, {cache}"
            elif work.placement.sees is not None and not self.branches:
                problem = "tokens of this model see all before them; it takes no branches"
            elif work.inputs.shape[1:] != shape or not work.inputs.shape[0]:
                came = tuple(work.inputs.shape)
                problem = f"inputs of shape {came} came instead of {('n', *shape)}"
            elif work.inputs.is_floating_point() != bool(route.first):
                kind = "hidden states" if route.first else "token ids"
                problem = f"layer {route.first} takes {kind}"
            elif id(work.cache) in seen:
                problem = "a session is in the batch twice"
            if problem:
                raise SpanError(route.first, route.last, problem)
            seen.add(id(work.cache))

    def _groups(self, batch: Sequence[Work]) -> list[list[int]]:
        """Return which works share a forward: their indices, in groups."""
        if not self.packs:
            return [[index] for index in range(len(batch))]
        if len(batch) > 1 and self._rounds_visibly:
            return groups([work.inputs.shape[0] for work in batch])
        return [list(range(len(batch)))]

    def _catch_up(self, route: _Route, cache: KVCache) -> None:
        """Compute rows once more until few are left to compute in front of new ones."""
        while (replayed := cache.replayed()) is not None and len(replayed) > MAX_REPLAYED:
            piece = replayed[:MAX_REPLAYED]
            with torch.inference_mode():
                self._run(route, [Work.at(cache, cache.begins, piece)])
            cache.catch_up(len(piece))

    def _run(self, route: _Route, batch: Sequence[Work]) -> list[torch.Tensor]:
        # All uploads happen before the forward: no layer waits for one.
        views = [self._view(work) for work in batch]
        caches = [work.cache for work in batch]
        pads = self.config._attn_implementation == PACKED
        packed = self._packed_cache(caches, views, self._gathers, pads)
        inputs = batch[0].inputs if len(batch) == 1 else torch.cat([work.inputs for work in batch])
        own = [position for work in batch for position in work.placement.positions]
        positions = upload(torch.tensor(own), self.device)
        tapped = [(work.taps, work.inputs.shape[0]) for work in batch]
        with running(packed), self._tap_hooks.catching(tapped):
            row = self._forward(route, upload(inputs, self.device), positions, packed)
        return list(row.split_with_sizes(packed.counts))

    def _view(self, work: Work) -> AttentionView:
        count = work.inputs.shape[0]
        by_lines = self._rounds_visibly and count <= MOST_ROWS
        return AttentionView.of(work.placement, count, self.device, by_lines)

    def _forward(
        self,
        route: _Route,
        inputs: torch.Tensor,
        positions: torch.Tensor,
        packed: PackedCache | None,
    ) -> torch.Tensor:
        """Run the decoder's own forward: row [total(, hidden)] -> [total, hidden] on the CPU."""
        decoder = self._decoder
        decoder.config = self._holder.config = route.config
        setattr(self._holder, self._layers_name, route.layers)
        # Token ids enter through the embedding, hidden states at the first layer.
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
                **{self._cache_argument: packed},
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
            if not self.cuts.allow(*key):
                raise SpanError(*key, f"this model can be cut {self.cuts}")
            if not self.first <= key[0] < key[1] <= self.last:
                problem = f"the layers [{key[0]}, {key[1]}) are not all in it"
                raise SpanError(self.first, self.last, problem)
            config = narrow(self.config, *key)
            config._attn_implementation = self.config._attn_implementation
            layers = nn.ModuleList(self._layers[key[0] : key[1]])
            route = self._routes[key] = _Route(*key, layers, config)
            self._hook_ends(*key)
        return route

    def _hook_ends(self, first: int, last: int) -> None:
        """Hook the layers where hidden states enter and leave.

        They enter behind the embedding stage and leave before the final norm, whatever a model does
        in these (scaling, another norm). This makes spans exact without knowing the model.
        """
        entry = self._layers[first]
        exit_ = self._layers[last - 1]
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
