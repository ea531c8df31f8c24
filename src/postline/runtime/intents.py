"""What a handler can raise to say what shall become of its record."""

from __future__ import annotations

import math
from datetime import timedelta

from postline.errors import UsageError

__all__ = ["LONGEST_DELAY_SECONDS", "DeadLetter", "Discard", "Intent", "RetryLater"]

#: A record can wait so long at most, 366 days: what waits longer has been forgotten by everybody.
LONGEST_DELAY_SECONDS = 366 * 86_400.0


class Intent(Exception):
    """Base of the decisions that a handler can raise; what it published is dropped."""


class RetryLater(Intent):
    """Try this record again after `delay`; counts as one attempt of the ladder.

    Later records of the key wait behind it, other keys flow. A time that has passed means at once;
    raises UsageError for more than 366 days, and in a handler that is a failed attempt like any other.
    """

    delay_seconds = 0.0

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        if not (math.isfinite(seconds) and seconds <= LONGEST_DELAY_SECONDS):
            raise UsageError(
                f"RetryLater can't wait {seconds:g} s.", remedy="Give a number of seconds, of at most 366 days."
            )
        self.delay_seconds = max(0.0, seconds)
        super().__init__(reason or f"asked to retry in {self.delay_seconds:g} s")


class Discard(Intent):
    """Give this record up without keeping it; it counts as discarded and its key flows on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class DeadLetter(Intent):
    """Put this record among the dead letters now, without further attempts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
