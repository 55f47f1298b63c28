"""Run the public functions of a program, and write tracebacks of those that fail into a file.

It is run by the interpreter of a client, which has nothing of ours.
"""

import inspect
import json
import runpy
import sys
import traceback
from types import FunctionType


def failures(program: str) -> dict[str, str]:
    """Return the traceback of each function of a program that failed, by its name."""
    found = {}
    for name, function in runpy.run_path(program).items():
        is_check = isinstance(function, FunctionType) and not name.startswith("_")
        if is_check and inspect.getsourcefile(function) == program:
            try:
                function()
            except Exception:
                found[name] = traceback.format_exc()
    return found


if __name__ == "__main__":
    program, report = sys.argv[1:]
    with open(report, "w") as file:
        json.dump(failures(program), file)
