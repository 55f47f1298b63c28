"""What a client remembers from one start to the next: DHT nodes that let it in, peers that served
it well, and liars.

One JSON file a network. Nothing in it is trusted more than what the DHT says: whoever is named
there has to answer, with the certificate that its record names.
"""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.config import is_multiaddr
from swarm.network.dht.records import PeerRecord
from swarm.wire.fields import Fingerprint, PeerId

MAX_NODES = 16
MAX_PEERS = 64  # of a model
MAX_MODELS = 16
MAX_STANDINGS = 4096
MAX_FILE_BYTES = 4 << 20
MAX_AGE_S = 7 * 86_400.0  # of peers; most volunteers are gone by then

log = logging.getLogger(__name__)


class Standing(BaseModel):
    """What is known of one peer's honesty: how many windows of it were found right, and until when
    it is banned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: Annotated[int, Field(ge=0, lt=1 << 48)] = 0
    banned_until: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # seconds since 1970


NOBODY: Mapping[str, Standing] = MappingProxyType({})


class _Served(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float = Field(allow_inf_nan=False)  # seconds since 1970
    peers: tuple[PeerRecord, ...] = Field(max_length=MAX_PEERS)


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[str, ...] = Field(default=(), max_length=MAX_NODES)
    models: dict[Fingerprint, _Served] = Field(default={}, max_length=MAX_MODELS)
    standings: dict[PeerId, Standing] = Field(default={}, max_length=MAX_STANDINGS)


class AddressBook:
    """One network's page.

    Reading and writing never fail: a page that cannot be read is empty, one that cannot be written
    is lost.
    """

    def __init__(self, folder: Path, network: str) -> None:
        self._network = network
        self._file = folder / f"known-{network}.json"

    def nodes(self) -> tuple[str, ...]:
        """Multiaddrs of DHT nodes."""
        return tuple(filter(is_multiaddr, self._read().nodes))

    def peers(self, fingerprint: str) -> tuple[PeerRecord, ...]:
        """Peers that served a model, if that was not long ago."""
        served = self._read().models.get(fingerprint)
        if served is None or time.time() - served.at > MAX_AGE_S:
            return ()
        return tuple(peer for peer in served.peers if peer.network == self._network)

    def standings(self) -> Mapping[str, Standing]:
        """Of peers, by their ids; bans that are over are left out."""
        return _most_important(
            {peer_id: _today(each) for peer_id, each in self._read().standings.items()}
        )

    def remember(
        self,
        nodes: Sequence[str],
        fingerprint: str,
        peers: Sequence[PeerRecord],
        standings: Mapping[str, Standing] = NOBODY,
    ) -> None:
        """Take note of what was good just now, and who was not.

        What is not named keeps its place.
        """
        before = self._read()
        nodes = list(dict.fromkeys([*nodes, *before.nodes]))[:MAX_NODES]
        models = dict(before.models)
        if peers:
            models[fingerprint] = _Served(at=time.time(), peers=tuple(peers[:MAX_PEERS]))
        newest = sorted(models, key=lambda each: models[each].at)[-MAX_MODELS:]
        known = {peer_id: _today(each) for peer_id, each in before.standings.items()}
        for peer_id, new in standings.items():
            # another client's ban stays
            banned_until = max(new.banned_until, known.get(peer_id, new).banned_until)
            known[peer_id] = Standing(clean=new.clean, banned_until=banned_until)
        page = _Page(
            nodes=tuple(nodes),
            models={each: models[each] for each in newest},
            standings=_most_important(known),
        )
        try:
            self._write(page.model_dump_json(indent=1))
        except OSError as error:
            log.info("%s was not written: %s", self._file, error)

    def _read(self) -> _Page:
        try:
            if self._file.stat().st_size <= MAX_FILE_BYTES:
                return _Page.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.info("%s is not read: %s", self._file, error)
        return _Page()

    def _write(self, text: str) -> None:
        """All or nothing: others may read or write it at the same time."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=self._file.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self._file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def _today(standing: Standing) -> Standing:
    return Standing(clean=standing.clean) if standing.banned_until <= time.time() else standing


def _most_important(standings: Mapping[str, Standing]) -> dict[str, Standing]:
    """As many as may be kept: bans first, then long records.

    Whoever has neither is not worth a line.
    """
    worth = [each for each in standings.items() if each[1] != Standing()]
    return dict(
        sorted(worth, key=lambda each: (-each[1].banned_until, -each[1].clean))[:MAX_STANDINGS]
    )
