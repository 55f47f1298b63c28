"""Logs of the programs, on standard error: lines for people, or a JSON object a line for machines.

What is meant for the user goes to standard output and is not logged.
"""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone

from swarm.util.rates import Rate, TokenBuckets

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
PACKAGES = ("swarm", "peers")  # ours; of others only warnings are of interest
# On import, if only by transformers, they warn of missing kernels that are faster or for other
# GPUs.
CHATTY = ("torchao", "bitsandbytes", "torch.utils._pytree")
MAX_TEXT = 8192  # characters of a message or a traceback
# lines of one place in the code: what strangers do is logged, and must not fill a disk
MAX_A_MINUTE = 60
# libraries rename them
_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One object a record: ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, then what
    was passed as ``extra``, and ``exception``, the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time_of_day = datetime.fromtimestamp(record.created, timezone.utc).isoformat(
            timespec="milliseconds"
        )
        line = {
            "time": time_of_day.replace("+00:00", "Z"),
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "message": record.getMessage()[:MAX_TEXT],
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_TEXT:]
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(extra | line, default=str)


class Sparing(logging.Filter):
    """Lets `MAX_A_MINUTE` lines of one place in the code pass.

    The next line tells how many were left out. Debug lines are not limited.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = TokenBuckets(Rate.a_minute(MAX_A_MINUTE), clock)
        self._left_out: Counter[tuple[str, int]] = Counter()  # lines, by place

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        place = record.pathname, record.lineno
        if not self._lines.take(place):
            self._left_out[place] += 1
            return False
        if left_out := self._left_out.pop(place, 0):
            record.msg = f"{record.getMessage()} ({left_out} more like this were left out before)"
            record.args = None
        return True


def set_up(level: str = "warning", form: str = "text") -> None:
    """Log records of this level (one of `LEVELS`) and above in this form (one of `FORMATS`)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if form == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    )
    handler.addFilter(Sparing())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.ERROR)
