"""What a process says in its log of records that failed: a few lines a minute, however many fail."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from postline.clock import Clock
from postline.logs.events import event
from postline.runtime.deadletters import describe

__all__ = ["Complaints", "Place"]

_log = logging.getLogger("postline.runtime")

_WINDOW_SECONDS = 60.0
_LINES_MAX = 20


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic} {self.partition}:{self.offset}"


class Complaints:
    """Says which records of a subscription are retried, done after that, given up or discarded.

    A flood of failures must not become a flood of lines: each minute has twenty; then one
    says that more are left out, and the first of the next how many. Lists and counts are complete; the log is a hint
    to look.
    Keys and contents stay out of it, since they may be personal.
    """

    def __init__(self, subscription: str, clock: Clock) -> None:
        self._subscription = subscription
        self._clock = clock
        self._window_ends = 0.0
        self._lines = 0
        self._left_out = 0

    def released(self, place: Place, attempt: int) -> None:
        """The record at `place`, which waited to be tried again, is done."""
        self._say(
            logging.INFO, "record.released", place, f"is done with {place}, by attempt {attempt}", attempt=attempt
        )

    def retrying(self, place: Place, attempt: int, delay_seconds: float, error: BaseException) -> None:
        """The record at `place` failed and waits for its next attempt."""
        what = f"retries {place} in {delay_seconds:.3g} s, after attempt {attempt}: {describe(error)}"
        self._say(logging.WARNING, "record.held", place, what, attempt=attempt, delay_seconds=round(delay_seconds, 3))

    def gave_up(self, place: Place, attempts: int, holds: bool, error: BaseException) -> None:
        """The record at `place` became a dead letter."""
        key = "; its key waits" if holds else ""
        look = f"`postline dlq list {self._subscription}`"
        what = f"gives up {place} after attempt {attempts}{key} ({look}): {describe(error)}"
        self._say(logging.ERROR, "record.dead_lettered", place, what, attempt=attempts)

    def discarded(self, place: Place, error: BaseException) -> None:
        """The handler asked to discard the record at `place`."""
        self._say(logging.INFO, "record.discarded", place, f"discards {place}: {describe(error)}")

    def _say(self, level: int, name: str, place: Place, what: str, **fields: Any) -> None:
        if not _log.isEnabledFor(level):
            return
        now = self._clock.monotonic()
        if now >= self._window_ends:
            if self._left_out:
                _log.warning(
                    "subscription %s left out %d lines like these",
                    *(self._subscription, self._left_out),
                    extra=event("log.left_out", subscription=self._subscription, suppressed=self._left_out),
                )
            self._window_ends, self._lines, self._left_out = now + _WINDOW_SECONDS, 0, 0
        if self._lines == _LINES_MAX:
            self._leave_out()
            return
        self._lines += 1
        told = event(name, subscription=self._subscription, **place._asdict(), **fields)
        _log.log(level, "subscription %s %s", self._subscription, what, extra=told)

    def _leave_out(self) -> None:
        self._left_out += 1
        if self._left_out == 1:
            _log.warning(
                "subscription %s leaves out further lines like these for up to a minute: `postline lag` has the counts",
                self._subscription,
                extra=event("log.leaving_out", subscription=self._subscription),
            )
