"""`SamplingHandler`: at most so many lines a second, and how many were left out."""

from __future__ import annotations

import logging
import re

from postline.errors import UsageError
from postline.logs.events import event
from postline.logs.filtering import Fields

__all__ = ["SamplingHandler", "per_second"]

_RATE = re.compile(r"([1-9][0-9]{0,6})(?:/s)?")


def per_second(text: str) -> int:
    """Lines a second, as `50/s` or `50`. Raises UsageError."""
    if (found := _RATE.fullmatch(text.strip())) is None:
        raise UsageError(f"{text!r} is no number of lines a second.", remedy="Write it as 50/s, from 1/s on.")
    return int(found[1])


class SamplingHandler(logging.Handler):
    """Passes on at most `lines_per_second` of each logger and level, to the handler `target`.

    The first ones of a second pass, so that what happens rarely is always seen, and a flood of one logger's debug lines
    costs no other's, and none of its own errors. What was left out is counted, and told by one line of that logger and
    level when the second is over and anything is logged, and at the end. Nothing else is kept; no thread, no timer. It
    closes its target.
    """

    def __init__(self, target: logging.Handler, lines_per_second: int) -> None:
        super().__init__()
        self.target, self.lines_per_second = target, lines_per_second
        self._second = -1
        #: By logger and level, the lines of this second.
        self._lines: dict[tuple[str, int], int] = {}
        self.addFilter(Fields())

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the line on, or count it."""
        second = int(record.created)
        if second != self._second:
            self._tell()
            self._second = second
        place = (record.name, record.levelno)
        lines = self._lines[place] = self._lines.get(place, 0) + 1
        if lines <= self.lines_per_second:
            self.target.handle(record)

    def _tell(self) -> None:
        """Say what was left out, each logger and level by itself."""
        counted, self._lines = self._lines, {}
        for (name, level), lines in counted.items():
            if (number := lines - self.lines_per_second) > 0:
                said = logging.LogRecord(name, level, __file__, 0, "suppressed %d lines", (number,), None)
                vars(said).update(event("log.suppressed", suppressed=number), postline={})
                self.target.handle(said)

    def flush(self) -> None:
        """Tell what was left out until now, and flush the target."""
        self.acquire()
        try:
            self._tell()
        finally:
            self.release()
        self.target.flush()

    def close(self) -> None:
        """As `flush`, and close the target."""
        self.flush()
        self.target.close()
        super().close()
