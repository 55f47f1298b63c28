"""Locations of peers and clients, and the time that a packet travels between them."""

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0
KM_PER_MS = 200.0  # light in glass
DETOUR = 1.5  # cables do not follow great circles
SCATTER_KM = 400.0  # around a city
ACCESS_MS = 4.0  # median one-way delay of a home's own line
ACCESS_SPREAD = 0.7  # sigma of its log-normal distribution

# Latitude, longitude, and the percentage of peers and clients that live around there.
CITIES = (
    (40.7, -74.0, 14),
    (37.4, -122.1, 12),
    (41.9, -87.6, 7),
    (-23.5, -46.6, 5),
    (50.1, 8.7, 14),
    (51.5, -0.1, 10),
    (52.2, 21.0, 6),
    (28.6, 77.2, 7),
    (31.2, 121.5, 9),
    (35.7, 139.7, 7),
    (1.3, 103.8, 5),
    (-33.9, 151.2, 4),
)


@dataclass(frozen=True)
class Location:
    """A point on the globe (a unit vector) and the one-way delay of the line there."""

    at: tuple[float, float, float]
    access_ms: float

    @classmethod
    def choose(cls, rng: random.Random) -> "Location":
        """Return a random location around one of the cities."""
        latitude, longitude, _ = rng.choices(CITIES, weights=[city[2] for city in CITIES])[0]
        degrees = math.degrees(SCATTER_KM / EARTH_RADIUS_KM)
        north = math.radians(latitude + rng.gauss(0, degrees))
        east = math.radians(longitude + rng.gauss(0, degrees) / math.cos(math.radians(latitude)))
        at = (math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north))
        return cls(at, ACCESS_MS * rng.lognormvariate(0, ACCESS_SPREAD))


def one_way_ms(a: Location, b: Location) -> float:
    """Return the one-way delay between two locations."""
    cosine = sum(x * y for x, y in zip(a.at, b.at, strict=True))
    return _travel_ms(cosine) + a.access_ms + b.access_ms


def one_way_table_ms(here: "Locations", there: "Locations") -> Floats:
    """Return the one-way delays from each of ``here`` to each of ``there``."""
    cosines = np.clip(here.at @ there.at.T, -1.0, 1.0)
    table: Floats = np.arccos(cosines) * (EARTH_RADIUS_KM * DETOUR / KM_PER_MS)
    table += here.access_ms[:, None] + there.access_ms[None, :]
    return table


class Locations:
    """Many locations, for arithmetic with whole arrays."""

    def __init__(self, places: "list[Location]") -> None:
        self.at = np.array([place.at for place in places]).reshape(len(places), 3)
        self.access_ms = np.array([place.access_ms for place in places])

    def __getitem__(self, which: NDArray[np.int64]) -> "Locations":
        some = Locations([])
        some.at = self.at[which]
        some.access_ms = self.access_ms[which]
        return some


def _travel_ms(cosine: float) -> float:
    return math.acos(min(1.0, max(-1.0, cosine))) * EARTH_RADIUS_KM * DETOUR / KM_PER_MS
