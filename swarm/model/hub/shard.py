"""One safetensors file on the hub: its header, and those of its tensors that are asked for.

Tensors of a layer are used together and lie side by side, so they are fetched together: with a
tensor come all others of the file whose names begin with the same layer's number. A fetched range
cannot be checked against the file's hash; its place, its length and the file's size are.
"""

import logging
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from swarm.errors import DamagedModel
from swarm.model.edge import reason
from swarm.model.folder import MAX_HEADER_BYTES, Stored, read_places
from swarm.model.hub.ranges import NoRanges, RemoteFile
from swarm.model.hub.sparse import Range, SparseFile, joined

FIRST_BYTES = 100_000  # of a file: almost all headers are shorter
GAP_BYTES = 1 << 20  # what is fetched on top, to ask once instead of twice
PIECE_BYTES = 64 << 20  # of one request: what is lost if the connection breaks
MAX_BREAKS = 10  # of connections, while ranges are fetched
LAYER = re.compile(r"(?:[^.]*\.)*?[0-9]+\.")  # the beginning of a name up to its first number

log = logging.getLogger(__name__)


class HubShard:
    """A safetensors file on the hub, and a local file with parts of it. Any thread may use it."""

    def __init__(self, model: str, remote: RemoteFile, path: Path) -> None:
        """Nothing is read yet.

        Args:
            model: its name, for messages.
            path: of the local file, which may hold parts from before.
        """
        self._model = model
        self._remote = remote
        self._path = path
        self._lock = threading.Lock()
        self._local: SparseFile | None = None
        self._places: dict[str, tuple[Stored, Range]] | None = None

    @property
    def path(self) -> Path:
        """The local file."""
        return self._path

    def stored(self) -> dict[str, Stored]:
        """Return how the tensors lie in the file; fetches its header.

        Raises:
            DamagedModel: if the header does not explain the file.
            NoRanges: if the hub sends whole files only.
            Exception: what the hub's library raises for a request that fails.
        """
        with self._lock:
            return {name: stored for name, (stored, _) in self._header().items()}

    def fetch(self, name: str) -> bool:
        """Make a tensor readable in the local file. Return whether anything had to be fetched.

        Raises:
            KeyError: for an unknown name.
            Exception: as `stored`.
        """
        with self._lock:
            places = self._header()
            assert self._local is not None  # the header lies there
            if not self._local.missing([places[name][1]]):
                return False
            layer = LAYER.match(name)
            beginning = layer[0] if layer else name
            names = [other for other in places if other.startswith(beginning)]
            self._get(self._local, joined((places[each][1] for each in names), GAP_BYTES))
            return True

    def _header(self) -> dict[str, tuple[Stored, Range]]:
        if self._places is None:
            local = self._local = SparseFile(self._path, self._remote.size)
            self._get(local, [(0, min(FIRST_BYTES, self._remote.size))])
            with self._path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
            end = 8 + length
            if length > MAX_HEADER_BYTES or end > self._remote.size:
                size = f"{self._remote.size:,} bytes"
                why = f"is no whole safetensors file ({size})"
                raise DamagedModel(self._model, self._remote.name, why)
            self._get(local, [(0, end)])
            self._places = read_places(self._model, self._path, self._remote.name)
        return self._places

    def _get(self, local: SparseFile, ranges: Iterable[Range]) -> None:
        """Fetch what the local file does not hold of these ranges.

        A connection that breaks is tried again, as long as each brings something.
        """
        ranges = list(ranges)
        breaks = 0
        while missing := local.missing(ranges):
            start, stop = missing[0]
            stop = min(start + PIECE_BYTES, stop)
            try:
                local.write(start, self._remote.read(start, stop))
            except (NoRanges, OSError):
                raise
            except Exception as error:  # of the hub's library
                breaks += 1
                if breaks > MAX_BREAKS or local.missing(ranges) == missing:
                    raise
                log.info("%s is fetched further: %s", self._remote.name, reason(error))
