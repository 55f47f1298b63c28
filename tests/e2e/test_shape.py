"""`swarm bench --shape` with the real peer program, at a size that a test can afford."""

from dataclasses import astuple

import pytest

from helpers.shapes import TINY
from swarm.shapes.bench import NOW, WAYS, WITHOUT_HEAD, ShapeSettings, measure_shape
from swarm.shapes.script import Odds

LINK_MS = 5.0
pytestmark = pytest.mark.usefixtures("warmly")


async def test_peers_of_a_shape_serve_a_client_that_writes_the_script_in_every_way() -> None:
    settings = ShapeSettings(TINY, Odds(0.8), 2, LINK_MS, 1, 24, 12, others=(WITHOUT_HEAD,))
    result = await measure_shape(settings, quiet=True)
    told = result.as_dict()
    for rows in (told["ways"], told["without_head"]):
        assert [row["way"] for row in rows] == [way.name for way in WAYS]
    for row in (*result.rows(), *result.rows(WITHOUT_HEAD)):
        assert row.identical
        assert row.share is not None
        assert sum(astuple(row.share)) == pytest.approx(1.0)
        assert row.loop_ms >= 3 * LINK_MS + sum(result.stage_ms)
    [of_own], [of_peers] = result.clients[NOW], result.clients[WITHOUT_HEAD]
    plain, without = of_own.plain, of_peers.plain
    assert without.token_ids == plain.token_ids
