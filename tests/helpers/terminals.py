"""Terminals of some widths, and a pipe, for what is shown as tables."""

import io
import sys
from collections.abc import Callable

import pytest

WIDTHS = (60, 80, 200)


class Screen(io.StringIO):
    """Standard output that is a terminal, or none."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def on_screens(monkeypatch: pytest.MonkeyPatch, show: Callable[[], None]) -> dict[int, list[str]]:
    """The lines of what is shown, without colours, by the width of the terminal; those of a pipe by
    0.

    No line of a terminal is wider than it is.
    """
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = {}
    for width in (*WIDTHS, 0):
        screen = Screen(is_terminal=bool(width))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            if width:
                patch.setenv("COLUMNS", str(width))
            else:
                patch.delenv("COLUMNS", raising=False)
            show()
        lines = (
            screen.getvalue()
            .replace("\x1b[3m", "")
            .replace("\x1b[1m", "")
            .replace("\x1b[0m", "")
            .splitlines()
        )
        assert not width or max(map(len, lines)) <= width, "\n".join(lines)
        shown[width] = lines
    return shown
