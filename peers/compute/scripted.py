"""A span without weights: it takes the time that its layers take on a GPU, and predicts a script.

`swarm bench --shape` measures a client at real sizes with it. Everything else of the peer is real:
links, directory, sessions, scheduler, the bookkeeping of caches, and hidden states of the true
width.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from swarm.errors import ConfigError, SpanError
from swarm.model.cache import KVCache
from swarm.model.checkpoint import Checkpoint
from swarm.model.folder import path_of
from swarm.model.rehearsal import rehearsed
from swarm.model.span import Span
from swarm.model.taps import Taps
from swarm.model.work import Work
from swarm.shapes.script import SCRIPT_FILE, Script, between
from swarm.wire.fields import MAX_SESSION_TOKENS
from swarm.wire.taps import LayerOutputs

SURE = 50.0  # a logit that makes all others improbable

LoadSpan = Callable[..., Span]
"""Loads a span, with the arguments of `Span.load`."""


def scripted(model: str) -> LoadSpan:
    """Return what loads spans of a model without real layers; see `swarm.shapes.folder`.

    Raises:
        ConfigError: for a model with real layers.
        DamagedModel: if its script cannot be read.
    """
    folder = path_of(model)
    if folder is None or not (folder / SCRIPT_FILE).is_file():
        problem = f"{model} has no {SCRIPT_FILE}: its layers are real ones, so serve these"
        raise ConfigError("--scripted", problem)
    return partial(ScriptedSpan.of, Script.load(folder))


class ScriptedSpan(Span):
    """Layers that are not there, and hidden states of which the head makes what the script says.

    Whatever layer is tapped, its output is the span's.

    The output at a position is the head's own row of the token that follows. By that, the head
    gives this token by far the highest logit: its other rows are random, and random rows of some
    thousand numbers are nearly at right angles to each other.

    Args:
        rows: ``[vocabulary, hidden]``, the head's weight. Only the script's rows are read.
        sleep: waits for some seconds.
    """

    taps = True

    def __init__(
        self,
        script: Script,
        rows: torch.Tensor,
        layers: tuple[int, int],
        dtype: torch.dtype,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.first, self.last = layers
        self.vocab_size, self.hidden_size = rows.shape
        self.dtype = dtype
        self.device = rows.device
        self.nbytes = 0
        self.nbytes_per_token = 0
        self.packs = True
        self._script = script
        self._rows = rows
        self._sleep = sleep

    @classmethod
    def of(
        cls,
        script: Script,
        checkpoint: Checkpoint,
        first: int,
        last: int,
        *,
        dtype: torch.dtype,
        device: str | torch.device = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> "ScriptedSpan":
        """Return the layers ``[first, last)``. The arguments are those of `Span.load`."""
        rows = checkpoint.tensor(f"{rehearsed(checkpoint).tied}.weight")
        return cls(script, rows, (first, last), dtype)

    @property
    def head(self) -> "ScriptedHead":
        """The head that goes with these hidden states."""
        return ScriptedHead(self._script, self._rows, self._sleep)

    def new_cache(
        self, first: int | None = None, last: int | None = None, limit: int = MAX_SESSION_TOKENS
    ) -> KVCache:
        """See `Span.new_cache`. It holds no keys and values, but knows how many there would be."""
        return KVCache(*self._layers(first, last), limit)

    def forward(
        self, batch: Sequence[Work], first: int | None = None, last: int | None = None
    ) -> list[torch.Tensor]:
        """See `Span.forward`. It returns when the layers would have computed for long enough."""
        began = time.perf_counter()
        begin, end = self._layers(first, last)
        for work in batch:
            if not work.cache.fits(work.placement, len(work.inputs)):
                raise SpanError(begin, end, f"a cache may hold {work.cache.limit} rows")
            work.cache.place(work.placement)
        outputs = [self._rows_behind(work) for work in batch]
        for work, output in zip(batch, outputs, strict=True):
            work.cache.advance(len(work.inputs))
            if work.taps is not None and work.taps.tokens:
                _fill(work.taps, output)
        due_s = self._script.stage_ms(end - begin, sum(map(len, outputs))) / 1e3
        self._sleep(max(0.0, began + due_s - time.perf_counter()))
        return outputs

    def _layers(self, first: int | None, last: int | None) -> tuple[int, int]:
        return self.first if first is None else first, self.last if last is None else last

    def _rows_behind(self, work: Work) -> torch.Tensor:
        """Return ``[n, hidden]`` at the positions of a work."""
        following = [self._script.at(position + 1) for position in work.placement.positions]
        return self._rows[following].to(self.dtype)


def _fill(taps: Taps, output: torch.Tensor) -> None:
    """Fill in taps by outputs ``[n, hidden]`` of a work."""
    tapped = output[-taps.tokens :, None].expand(-1, len(taps.terms.layers), -1)
    taps.outputs = LayerOutputs.pack(tapped, taps.terms.float8)


class ScriptedHead:
    """A head of whose weights only the script's rows are read, with the time of a whole one.

    It answers a script's hidden states with random logits, in which the token of that row is far
    the best, as in those of the true head.

    Args:
        rows: ``[vocabulary, hidden]``, the head's weight.
        sleep: waits for some seconds.
    """

    taps = False

    def __init__(
        self, script: Script, rows: torch.Tensor, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.nbytes = rows.nbytes
        self._script = script
        self._dtype = rows.dtype
        self._tokens = {_key(rows[token]): token for token in set(script.tokens)}
        draw = torch.Generator().manual_seed(0)
        self._logits = torch.randn(rows.shape[0], generator=draw)
        self._sleep = sleep

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return ``[n, vocabulary]`` float32 for ``[n, hidden]``, which a `ScriptedSpan` gave."""
        began = time.perf_counter()
        tokens = [self._tokens[_key(row)] for row in hidden.to(self._dtype)]
        logits = self._logits.repeat(len(tokens), 1)
        logits[torch.arange(len(tokens)), tokens] = SURE
        due_s = between(self._script.head_ms, len(tokens)) / 1e3
        self._sleep(max(0.0, began + due_s - time.perf_counter()))
        return logits


def _key(row: torch.Tensor) -> bytes:
    """Return a row's bytes."""
    return row.view(torch.uint8).numpy().tobytes()
