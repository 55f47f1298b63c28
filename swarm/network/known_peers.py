"""What a client remembers from one start to the next: DHT nodes that let it in, peers that served
it well, and peers that lied.

One JSON file a network. Nothing in it is trusted more than what the DHT says: a peer that it names
has to answer with the certificate in its record.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.config import is_multiaddr
from swarm.network.dht.records import PeerRecord
from swarm.util.files import write_whole
from swarm.wire.fields import Fingerprint, PeerId

MAX_NODES = 16
MAX_PEERS = 64  # of a model
MAX_MODELS = 16
MAX_REPUTATIONS = 4096
MAX_FILE_BYTES = 4 << 20
MAX_AGE_S = 7 * 86_400.0  # of peers; most volunteers are gone by then

log = logging.getLogger(__name__)


class Reputation(BaseModel):
    """The honesty of one peer, as one client found it.

    Attributes:
        clean: windows of its work that were computed again and found right.
        banned_until: seconds since 1970; 0 if it is not banned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: Annotated[int, Field(ge=0, lt=1 << 48)] = 0
    banned_until: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


NO_REPUTATIONS: Mapping[str, Reputation] = MappingProxyType({})


class _Served(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float = Field(allow_inf_nan=False)  # seconds since 1970
    peers: tuple[PeerRecord, ...] = Field(max_length=MAX_PEERS)


class _Page(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[str, ...] = Field(default=(), max_length=MAX_NODES)
    models: dict[Fingerprint, _Served] = Field(default={}, max_length=MAX_MODELS)
    # under the name that it has in files of earlier versions
    reputations: dict[PeerId, Reputation] = Field(
        default={}, alias="standings", max_length=MAX_REPUTATIONS
    )


class KnownPeers:
    """One client's memory of one network.

    Reading and writing never fail: a file that cannot be read counts as empty, and one that cannot
    be written is lost.

    Args:
        folder: where the file lies; None remembers nothing.
        network: the network's name.
    """

    def __init__(self, folder: Path | None, network: str) -> None:
        self._network = network
        self._file = folder / f"known-{network}.json" if folder else None

    def nodes(self) -> tuple[str, ...]:
        """Return multiaddrs of DHT nodes that let this client in."""
        return tuple(filter(is_multiaddr, self._read().nodes))

    def peers(self, fingerprint: str) -> tuple[PeerRecord, ...]:
        """Return the records of peers that served a model at most `MAX_AGE_S` ago."""
        served = self._read().models.get(fingerprint)
        if served is None or time.time() - served.at > MAX_AGE_S:
            return ()
        return tuple(peer for peer in served.peers if peer.network == self._network)

    def reputations(self) -> Mapping[str, Reputation]:
        """Return reputations by peer id; bans that are over are left out."""
        return _most_important(
            {peer_id: _today(each) for peer_id, each in self._read().reputations.items()}
        )

    def remember(
        self,
        nodes: Sequence[str],
        fingerprint: str,
        peers: Sequence[PeerRecord],
        reputations: Mapping[str, Reputation] = NO_REPUTATIONS,
    ) -> None:
        """Add what was found out in this run: DHT nodes and peers of a model that were good, and
        reputations.

        Nodes, models and peers that are not named here stay, as far as the bounds allow.
        """
        if self._file is None:
            return
        before = self._read()
        nodes = list(dict.fromkeys([*nodes, *before.nodes]))[:MAX_NODES]
        models = dict(before.models)
        if peers:
            models[fingerprint] = _Served(at=time.time(), peers=tuple(peers[:MAX_PEERS]))
        newest = sorted(models, key=lambda each: models[each].at)[-MAX_MODELS:]
        known = {peer_id: _today(each) for peer_id, each in before.reputations.items()}
        for peer_id, new in reputations.items():
            # another client's ban stays
            banned_until = max(new.banned_until, known.get(peer_id, new).banned_until)
            known[peer_id] = Reputation(clean=new.clean, banned_until=banned_until)
        page = _Page(
            nodes=tuple(nodes),
            models={each: models[each] for each in newest},
            standings=_most_important(known),
        )
        try:
            write_whole(self._file, page.model_dump_json(indent=1, by_alias=True))
        except OSError as error:
            log.info("%s was not written: %s", self._file, error)

    def _read(self) -> _Page:
        if self._file is None:
            return _Page()
        try:
            if self._file.stat().st_size <= MAX_FILE_BYTES:
                return _Page.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.info("%s is not read: %s", self._file, error)
        return _Page()


def _today(reputation: Reputation) -> Reputation:
    """Without a ban that is over."""
    over = reputation.banned_until <= time.time()
    return Reputation(clean=reputation.clean) if over else reputation


def _most_important(reputations: Mapping[str, Reputation]) -> dict[str, Reputation]:
    """Return at most `MAX_REPUTATIONS`: bans first, then those with the most clean windows; none
    without either."""
    worth = [each for each in reputations.items() if each[1] != Reputation()]
    return dict(
        sorted(worth, key=lambda each: (-each[1].banned_until, -each[1].clean))[:MAX_REPUTATIONS]
    )
