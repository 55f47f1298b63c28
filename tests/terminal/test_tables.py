"""Tables are shown whole at any width."""

import io

import pytest
from rich import box
from rich.console import Console

from helpers.terminals import WIDTHS, on_screens
from swarm.terminal.tables import print_table

NAMES = ("", "way", *(f"column {i}" for i in range(10)))
ROWS = [
    (f"{row}", f"way {row}", *(f"{row}.{column:03}" for column in range(10))) for row in range(3)
]


@pytest.mark.parametrize("shape", [None, box.SIMPLE_HEAD])
def test_columns_go_on_below_with_the_names_of_their_rows(
    shape: box.Box | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_screens(
        monkeypatch,
        lambda: print_table(Console(), NAMES, ROWS, title="[a] title", keys=2, box=shape),
    )
    for width, lines in shown.items():
        text = "\n".join(lines)
        assert lines[0] == "[a] title"
        assert all(text.count(f"column {i}") == 1 for i in range(10)), width
        assert all(text.count(cell) == 1 for row in ROWS for cell in row[2:]), width
        parts = text.count("way 1")
        assert all(text.count(f"way {row}") == parts for row in range(3))
    assert "".join(shown[60]).count("way 1") > 1
    assert "".join(shown[200]).count("way 1") == 1
    assert shown[0] == shown[200]
    assert set(WIDTHS) | {0} == set(shown)


def test_a_pipe_gets_lines_as_long_as_they_are() -> None:
    pipe = io.StringIO()
    wide = "x" * 300, "y" * 300
    print_table(Console(file=pipe), ("a", "b"), [wide])
    assert pipe.getvalue().splitlines()[1].split() == [*wide]
