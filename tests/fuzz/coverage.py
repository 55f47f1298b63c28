"""Which ways a call takes through some files: what fuzzing is guided by."""

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

Way = tuple[Any, ...]


class Watched:
    """Steps from line to line in the files of some modules; without ``pairs``, only which lines:
    where tasks take turns, who comes after whom means little."""

    def __init__(self, modules: Iterable[Any], pairs: bool = True) -> None:
        self._pairs = pairs
        self._files = {module.__file__ for module in modules}
        self._ways: set[Way] = set()
        self._before = 0

    def ways(self, call: Callable[[], Any]) -> set[Way]:
        """The steps that the call took. What it raises is raised."""
        self._ways, self._before = set(), 0
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
