"""Tasks of this process that wait for appends to a topic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from postline.clock import INSTANT_SECONDS, Alarm, Clock

__all__ = ["Waiters"]


class Waiters:
    """Wakes waiting tasks by topic; the event loop's property.

    Reads of this engine never suspend, so a task that reads, finds nothing and waits loses no
    wake-up: what was committed after its read is announced in a later turn of the loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Those who wait, with their times, in the order in which they came: a set would wake them by memory address.
        self._waiting: dict[str, dict[asyncio.Future[None], float]] = {}
        #: One for all, set for the earliest or before.
        self._alarm = Alarm(clock, self._time_passed)

    async def wait(self, topic: str, wait_seconds: float) -> None:
        """Return at the next `wake` of the topic, or after `wait_seconds`."""
        woken = asyncio.get_running_loop().create_future()
        group = self._waiting.setdefault(topic, {})
        group[woken] = due = self._clock.monotonic() + wait_seconds
        if due < self._alarm.due:
            self._alarm.set(due)
        try:
            await woken
        finally:
            del group[woken]

    def wake(self, topics: Iterable[str]) -> None:
        """Let everybody go on who waits for one of these topics."""
        for topic in topics:
            for woken in self._waiting.get(topic, ()):
                _finish(woken)

    def wake_all(self) -> None:
        """Let everybody go on: something was appended somewhere, or the log closes."""
        self.wake(self._waiting)

    def close(self) -> None:
        """Let everybody go on, for the last time."""
        self.wake_all()
        self._alarm.stop()

    def _time_passed(self) -> None:
        now = self._clock.monotonic() + INSTANT_SECONDS
        later = []
        for group in self._waiting.values():
            for woken, due in group.items():
                if due <= now:
                    _finish(woken)
                else:
                    later.append(due)
        if later:
            self._alarm.set(min(later))


def _finish(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
