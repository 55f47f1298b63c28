import json

from click.testing import CliRunner

from swarm.sim.__main__ import main


def test_a_run_prints_tables():
    result = CliRunner().invoke(main, ["--peers", "12", "--layers", "8", "--clients", "4"])
    assert result.exit_code == 0, result.output
    for heading in ("### Directory", "### Load of the DHT", "### Coverage", "### Loops"):
        assert heading in result.output


def test_the_planner_is_measured():
    result = CliRunner().invoke(main, ["planner", "--layers", "8", "50", "200"])
    assert result.exit_code == 0
    assert "50 records, 8 layers:" in result.output
    assert "200 records, 8 layers:" in result.output


def test_both_tell_programs_all_that_they_know():
    result = CliRunner().invoke(
        main, ["--peers", "12", "--layers", "8", "--clients", "2", "--json"]
    )
    (story,) = json.loads(result.stdout)
    assert story["scenario"]["peers"] == 12
    assert story["moments"][-1].keys() >= {"at_s", "missing_layers"}
    assert len(story["log"]["found"]) >= 2
    (timing,) = json.loads(
        CliRunner().invoke(main, ["planner", "--layers", "8", "50", "--json"]).stdout
    )
    assert timing["records"] == 50
    assert 0 < timing["median_ms"] <= timing["slowest_ms"]
