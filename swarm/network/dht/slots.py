"""The slots of a peer's own records: the first key with room on the peer's way down its tree.

A new peer walks down from the root, and then stays. Now and then it looks at a random key of its
way. If others have left an upper key, which readers might take for the last one, it moves up. If
too many came at once, those with the highest ranks move down.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

from swarm.network.dht.keys import CAPACITY, LIST_CAPACITY, MAX_DEPTH, rank_of

LOOK_INTERVAL_S = 120.0
FIRST_LOOK_S = 20.0  # after settling: others may have chosen the same key at the same moment
ROOM = CAPACITY * 3 // 4  # with fewer records, others move up to a key
CROWD = CAPACITY * 3 // 2  # with more records, some move down
LISTED = 8  # peers of one model that keep it in the list of models
LIST_INTERVAL_S = 180.0
MAX_LIST_INTERVAL_S = 3600.0


class RecordSlot:
    """The slot of one peer's record.

    Before every refresh, read the key that is `wanted`, if any, and pass the peers there to `saw`.

    ``depth`` is that of the slot on the peer's way. It is valid once no key is wanted.
    """

    def __init__(self, peer_id: str, rng: random.Random) -> None:
        self.depth = 0
        self._peer_id = peer_id
        self._rng = rng
        self._settled = False
        self._look_at_s = 0.0
        self._look_depth = 0

    def wanted(self, now_s: float) -> int | None:
        """Return the depth to look at now, if any."""
        if not self._settled:
            return self.depth
        return self._look_depth if now_s >= self._look_at_s else None

    def saw(self, others: Collection[str], now_s: float) -> None:
        """Note the other peers whose records lie at the depth that was wanted."""
        if not self._settled:
            if len(others) < CAPACITY or self.depth == MAX_DEPTH:
                self._settle(now_s)
            else:
                self.depth += 1
        elif self._look_depth < self.depth and len(others) < ROOM:
            self.depth = self._look_depth
            self._settle(now_s)
        elif self._look_depth == self.depth < MAX_DEPTH and _too_many(
            self._peer_id, others, CROWD, CAPACITY
        ):
            self.depth += 1
            self._settled = False
        else:
            self._look_next(now_s + LOOK_INTERVAL_S * self._rng.uniform(0.5, 1.5))

    def _settle(self, now_s: float) -> None:
        self._settled = True
        self._look_next(now_s + FIRST_LOOK_S * self._rng.uniform(0.5, 1.5))
        self._look_depth = self.depth

    def _look_next(self, at_s: float) -> None:
        self._look_at_s = at_s
        self._look_depth = self._rng.randint(0, self.depth)


class ModelListSlot:
    """The slot of one peer's entry in the list of models, if it keeps one.

    Used as `RecordSlot` is.
    """

    def __init__(self, peer_id: str, fingerprint: str, rng: random.Random) -> None:
        self.listed = False
        self.depth = 0
        self._peer_id = peer_id
        self._fingerprint = fingerprint
        self._rng = rng
        self._looks = 0
        self._look_depth = 0
        self._look_at_s = 0.0

    def wanted(self, now_s: float) -> int | None:
        """The depth to look at now."""
        return self._look_depth if now_s >= self._look_at_s else None

    def saw(self, others: Iterable[tuple[str, str]], now_s: float, crowd: int = 1) -> None:
        """Note the others' entries (fingerprint, peer id) at the depth that was wanted.

        Args:
            crowd: how many peers share the looking; the more, the less often each looks.
        """
        entries = list(others)
        same = [peer_id for fingerprint, peer_id in entries if fingerprint == self._fingerprint]
        here = self.listed and self._look_depth == self.depth
        full = LIST_CAPACITY * 3 // 2 if here else LIST_CAPACITY
        if len(entries) - len(same) >= full and self._look_depth < MAX_DEPTH:
            self._look_depth += 1
            return
        self.depth = self._look_depth
        self.listed = (
            not _too_many(self._peer_id, same, 2 * LISTED, LISTED) if here else len(same) < LISTED
        )
        interval_s = (
            min(LIST_INTERVAL_S * crowd, MAX_LIST_INTERVAL_S) if self._looks else FIRST_LOOK_S
        )
        self._look_depth = 0
        self._look_at_s = now_s + interval_s * self._rng.uniform(0.5, 1.5)
        self._looks += 1


def _too_many(peer_id: str, others: Collection[str], crowd: int, keep: int) -> bool:
    """Return whether there are more than ``crowd`` peers and this one ranks below ``keep``."""
    if len(others) < crowd:
        return False
    rank = rank_of(peer_id)
    return sum(rank_of(other) < rank for other in others) >= keep
