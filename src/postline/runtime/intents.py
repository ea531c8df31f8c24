"""What a handler can raise to say what shall become of its record."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["DeadLetter", "Discard", "Intent", "RetryLater"]


class Intent(Exception):
    """Base of the decisions that a handler can raise; what it published is dropped."""


class RetryLater(Intent):
    """Try this record again after `delay`; counts as one attempt of the ladder.

    Later records of the key wait behind it, other keys flow.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        self.delay_seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        super().__init__(reason or f"asked to retry in {self.delay_seconds:g} s")


class Discard(Intent):
    """Give this record up without keeping it; it counts as discarded and its key flows on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class DeadLetter(Intent):
    """Put this record among the dead letters now, without further attempts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
