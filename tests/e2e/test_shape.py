"""`swarm bench --shape` with the real peer program, at a size that a test can afford."""

from dataclasses import astuple

import pytest

from helpers.shapes import TINY
from swarm.shapes.bench import WAYS, ShapeSettings, measure_shape
from swarm.shapes.script import Odds

LINK_MS = 5.0
pytestmark = pytest.mark.usefixtures("warmly")


async def test_peers_of_a_shape_serve_a_client_that_writes_the_script_in_every_way() -> None:
    settings = ShapeSettings(TINY, Odds(0.8), 2, LINK_MS, 1, 24, 12)
    result = await measure_shape(settings, quiet=True)
    told = result.as_dict()
    assert [way["way"] for way in told["ways"]] == [way.name for way in WAYS]
    for row in result.rows():
        assert row.identical
        assert row.share is not None
        assert sum(astuple(row.share)) == pytest.approx(1.0)
        assert row.loop_ms >= 3 * LINK_MS + sum(result.stage_ms)
