"""The laboratory's report on real sizes, from what the command prints."""

import json
from pathlib import Path

from helpers.comparisons import compared
from helpers.shapes import TINY
from lab.report import write_report
from lab.sizes import size_tables
from swarm.shapes.bench import (
    AS_BEFORE,
    NOW,
    WAYS,
    WITHOUT_HEAD,
    ShapeResult,
    ShapeSettings,
)
from swarm.shapes.script import Odds


def told(before: bool = True) -> dict:
    others = (AS_BEFORE, WITHOUT_HEAD) if before else ()
    settings = ShapeSettings(TINY, Odds(0.8), 2, 20.0, 1, 64, 16, others=others)
    clients = {name: [compared(WAYS)] for name in (NOW, *others)}
    return json.loads(json.dumps(ShapeResult(settings, (1.1, 1.1), clients).as_dict()))


def test_each_shape_has_a_table_of_all_clients() -> None:
    lines = "\n".join(size_tables([told(), told(before=False)])).splitlines()
    assert lines.count("### tiny, 2 peers of 1.1 ms, draft model") == 2
    assert sum(line.startswith("| plain, now") for line in lines) == 2
    assert sum(line.startswith("| plain, before") for line in lines) == 1
    assert sum(line.startswith("| plain, without a head") for line in lines) == 1


def test_the_report_has_the_section_and_its_picture(tmp_path: Path) -> None:
    results = {"facts": {}, "matrix": [], "weather": [], "sessions": [], "sizes": [told(), told()]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    write_report(tmp_path)
    assert "## Real sizes" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "sizes.png").stat().st_size > 0
