"""Terminals of several widths, and a pipe, for tests of tables."""

import io
import sys
from collections.abc import Callable

import pytest

WIDTHS = (60, 80, 200)


class Screen(io.StringIO):
    """Standard output that is a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def on_screens(monkeypatch: pytest.MonkeyPatch, show: Callable[[], None]) -> dict[int, list[str]]:
    """Return the printed lines, without colours, by the terminal's width; those of a pipe by 0.

    Fail if a line is wider than its terminal.
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
