"""Detection of eclipse attacks: an attacker has made ids until enough of them were near a key.

Ids are hashes, so honest nodes are spread evenly. Their density is measured around a secret, random
place. See Sridhar et al. 2023, "Content Censorship in the InterPlanetary File System".
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

ID_BYTES = 20
NEAR = 8  # nodes at a key that are looked at: as many as a reader asks
AROUND = 16  # nodes at the secret place
CROWDED = 4.0  # times as dense; by chance this happens at one key of 700
MAX_KEYS = 1024  # remembered


class EclipseDetector:
    """The ids of other nodes that one node has seen.

    `place` is the secret place, to be searched for now and then.
    """

    def __init__(self) -> None:
        self.place = secrets.token_bytes(ID_BYTES)
        self._near: dict[bytes, tuple[int, ...]] = {}  # the distances of the nearest nodes, by key

    def move(self) -> None:
        """Choose another secret place and forget what was seen, which may be out of date."""
        self.place = secrets.token_bytes(ID_BYTES)
        self._near.clear()

    def saw(self, key: bytes, node_ids: Iterable[bytes]) -> None:
        """Note nodes that were named in an answer for a key."""
        if key not in self._near and len(self._near) >= MAX_KEYS:
            self._near.pop(next(each for each in self._near if each != self.place))
        where = int.from_bytes(key, "big")
        distances = {where ^ int.from_bytes(node_id, "big") for node_id in node_ids}
        most = AROUND if key == self.place else NEAR
        self._near[key] = tuple(sorted(distances.union(self._near.get(key, ())))[:most])

    def crowded(self, key: bytes) -> bool:
        """Return whether the nodes nearest to a key are suspiciously near; False if too few were
        seen."""
        near, around = self._near.get(key, ()), self._near.get(self.place, ())
        if len(near) < NEAR or len(around) < NEAR:
            return False
        return len(near) / near[-1] > CROWDED * len(around) / around[-1]
