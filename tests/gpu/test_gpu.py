"""The check for hosts with a GPU, with the CPU in the GPU's place, at tiny sizes."""

import io
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from gpu import spans
from gpu.__main__ import CHECKS, checks, main
from gpu.report import Check, Table, run_all
from gpu.sizes import TINY

CPU = torch.device("cpu")


@pytest.mark.usefixtures("warmly")
@pytest.mark.parametrize("name", CHECKS)
def test_the_check_passes_where_the_cpu_is_compared_with_itself(name: str, tmp_path: Path) -> None:
    (check,) = checks(TINY, CPU, tmp_path, [name])
    table = check.run()
    assert table.rows
    assert not table.failures
    assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_a_device_that_computes_otherwise_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One output in a thousand is off by a percent of the largest."""
    right = spans.outputs
    calls = 0

    def wrong(span: spans.Span) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        found = right(span)
        if calls % 2 == 0:  # the device's
            tensor = found["branches"]
            tensor.view(-1)[::1000] += tensor.abs().max() / 100
        return found

    monkeypatch.setattr(spans, "outputs", wrong)
    monkeypatch.setattr(spans, "MODELS", {"llama": {}})
    monkeypatch.setattr(spans, "TOLERANCES", {"float32": spans.TOLERANCES["float32"]})
    table = spans.spans_equal_the_cpus(TINY, CPU, tmp_path)
    assert [row.cells[2] for row in table.rows if row.passed is False] == ["branches"]


def test_a_check_that_fails_does_not_stop_the_others() -> None:
    def passes() -> Table:
        table = Table(("what", "ms"))
        table.add("this", 1, passed=True)
        return table

    def fails() -> Table:
        table = passes()
        table.add("that", float("nan"), passed=False)
        return table

    def raises() -> Table:
        raise RuntimeError("CUDA error: out of [memory]")

    shown = io.StringIO()
    all_of_them = [
        Check(run.__name__, f"The check that {run.__name__}", run)
        for run in (raises, fails, passes)
    ]
    assert run_all(all_of_them, Console(file=shown, width=100)) == ["raises", "fails"]
    text = shown.getvalue()
    assert "CUDA error: out of [memory]" in text
    assert text.count("FAIL") == 2
    assert text.rstrip().endswith("1 of 3 checks passed; failed: raises, fails")


def test_without_the_device_it_ends_with_a_sentence() -> None:
    missing = next(name for name in ("cuda", "mps", "xpu") if not _works(name))
    result = CliRunner().invoke(main, ["--device", missing])
    assert result.exit_code == 1
    assert "no device" in result.output
    assert "Traceback" not in result.output


def test_one_command_prints_the_table_and_the_verdict() -> None:
    result = CliRunner().invoke(main, ["--device", "cpu", "--only", "dtypes"])
    assert result.exit_code == 0, result.output
    assert "bfloat16 against float32" in result.output
    assert "1 of 1 checks passed" in result.output


def _works(name: str) -> bool:
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError, NotImplementedError):
        return False
    return True
