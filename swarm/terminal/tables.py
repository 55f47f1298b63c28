"""Tables that are never cut: columns that do not fit follow below, with the row names again."""

from collections.abc import Collection, Sequence

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

ANY_WIDTH = 1 << 12  # columns of characters: more than any table takes


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    title: str = "",
    keys: int = 1,
    left: Collection[str] = (),
    box: Box | None = None,
    sections: Collection[int] = (),
) -> None:
    """Print a table whose cells are never cut.

    In a terminal it keeps to the width, and only keys wrap; elsewhere it is as wide as needed.

    Args:
        keys: the number of first columns that name the row, repeated in each part of a table.
        left: columns that are left-aligned, besides the keys.
        sections: rows that have a line below them.
    """

    def part(chosen: Sequence[int]) -> Table:
        table = Table(box=box, padding=(0, 1) if box else (0, 2, 0, 0))
        for at in chosen:
            justify = "left" if at < keys or columns[at] in left else "right"
            table.add_column(columns[at], justify=justify, no_wrap=at >= keys)  # type: ignore[arg-type]
        for number, row in enumerate(rows):
            table.add_row(*(row[at] for at in chosen), end_section=number in sections)
        return table

    def width(chosen: Sequence[int]) -> int:
        options = console.options.update(width=ANY_WIDTH, max_width=ANY_WIDTH)
        return console.measure(part(chosen), options=options).maximum

    if title:
        # as Text, because a folder's name may look like markup
        console.print(Text(title, "italic"))
    everything = range(len(columns))
    if not console.is_terminal:
        console.width = max(console.width, width(everything))
    parts: list[list[int]] = []
    for at in everything[keys:]:
        if parts and width([*everything[:keys], *parts[-1], at]) <= console.width:
            parts[-1].append(at)
        else:
            parts.append([at])
    for number, chosen in enumerate(parts):
        if number and not box:
            console.print()
        console.print(part([*everything[:keys], *chosen]))
