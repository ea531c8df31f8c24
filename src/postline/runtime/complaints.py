"""What a process says in its log of partitions that come and go, and of records that failed: a few lines a minute."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from postline.clock import Clock
from postline.log.port import Assignment
from postline.runtime.deadletters import describe

__all__ = ["Complaints", "tell_partitions"]

_log = logging.getLogger("postline.runtime")

_WINDOW_SECONDS = 60.0
_LINES_MAX = 20


class Complaints:
    """Says which records of a subscription are retried, given up or discarded.

    A flood of failures must not become a flood of lines: each minute has twenty, and the first of
    the next says how many were left out. Lists and counts are complete; the log is a hint to look.
    Keys and contents stay out of it, since they may be personal.
    """

    def __init__(self, subscription: str, clock: Clock) -> None:
        self._subscription = subscription
        self._clock = clock
        self._window_ends = 0.0
        self._lines = 0
        self._left_out = 0

    def retrying(self, place: str, attempt: int, delay_seconds: float, error: BaseException) -> None:
        """The record at `place` failed and waits for its next attempt."""
        self._say(
            logging.WARNING, f"retries {place} in {delay_seconds:.3g} s, after attempt {attempt}: {describe(error)}"
        )

    def gave_up(self, place: str, attempts: int, holds: bool, error: BaseException) -> None:
        """The record at `place` became a dead letter."""
        key = "; its key waits" if holds else ""
        look = f"`postline dlq list {self._subscription}`"
        self._say(logging.ERROR, f"gives up {place} after attempt {attempts}{key} ({look}): {describe(error)}")

    def discarded(self, place: str, error: BaseException) -> None:
        """The handler asked to discard the record at `place`."""
        self._say(logging.INFO, f"discards {place}: {describe(error)}")

    def _say(self, level: int, what: str) -> None:
        if not _log.isEnabledFor(level):
            return
        now = self._clock.monotonic()
        if now >= self._window_ends:
            if self._left_out:
                _log.warning("subscription %s left out %d lines like these", self._subscription, self._left_out)
            self._window_ends, self._lines, self._left_out = now + _WINDOW_SECONDS, 0, 0
        if self._lines == _LINES_MAX:
            self._left_out += 1
            return
        self._lines += 1
        _log.log(level, "subscription %s %s", self._subscription, what)


def tell_partitions(subscription: str, what: str, assignments: Sequence[Assignment]) -> None:
    """Say what becomes of partitions, in one line."""
    if assignments:
        numbers = ", ".join(str(each.partition) for each in sorted(assignments, key=lambda each: each.partition))
        _log.info("subscription %s %s partitions %s of %s", subscription, what, numbers, assignments[0].topic)
