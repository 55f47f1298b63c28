"""The ways of a call through some files, which guide the fuzzing."""

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

Way = tuple[Any, ...]


class Watched:
    """Records the steps from line to line in the files of some modules.

    Without ``pairs`` it records only lines: where tasks alternate, steps mean little.
    """

    def __init__(self, modules: Iterable[Any], pairs: bool = True) -> None:
        self._pairs = pairs
        self._files = {module.__file__ for module in modules}
        self._ways: set[Way] = set()
        self._before = 0

    def ways(self, call: Callable[[], Any]) -> set[Way]:
        """Return the steps of a call. Raise what it raises."""
        self._ways = set()
        self._before = 0
        outside = sys.gettrace()
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(outside)
        return self._ways

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._step if frame.f_code.co_filename in self._files else None

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        self._ways.add((frame.f_code.co_name, self._before, frame.f_lineno, event == "exception"))
        if self._pairs:
            self._before = frame.f_lineno
        return self._step
