"""Limits of attempts in one process: how many run at once, and how many begin in a time."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from postline.clock import Clock, Timer

__all__ = ["Limit", "Limiter", "Rate"]

#: Of a rate without a stated burst: what comes in so many seconds may begin at once.
_BURST_SECONDS = 0.1
_ROUNDING_SECONDS = 1e-9


@dataclass(frozen=True)
class Rate:
    """At most so many attempts begin in a time (seconds or timedelta), in each process.

    In every window of W seconds at most `burst + count * W / per_seconds` begin. `burst` is how many may begin at once
    after a pause; without it, as many as come in a tenth of a second, at least 1.
    """

    count: float
    per_seconds: float | timedelta = 1.0
    burst: int | None = None

    @property
    def interval_seconds(self) -> float:
        """The time that one attempt takes of the rate."""
        per = self.per_seconds.total_seconds() if isinstance(self.per_seconds, timedelta) else self.per_seconds
        return per / self.count

    @property
    def at_once(self) -> int:
        """How many may begin at once."""
        return self.burst or max(1, int(_BURST_SECONDS / self.interval_seconds + _ROUNDING_SECONDS))

    def problems(self) -> list[str]:
        """What makes no sense, in sentences; [] if it can be used."""
        per = self.per_seconds.total_seconds() if isinstance(self.per_seconds, timedelta) else self.per_seconds
        if self.count <= 0 or per <= 0 or (self.burst is not None and self.burst < 1):
            return ["a rate needs a count and a time above zero, and a burst of 1 or more."]
        return []


@dataclass(frozen=True)
class Limit:
    """What holds for the attempts of one handler, or of several together; None where nothing does."""

    concurrency: int | None = None
    rate: Rate | None = None

    def __bool__(self) -> bool:
        return self.concurrency is not None or self.rate is not None

    def problems(self) -> list[str]:
        """What makes no sense, in sentences; [] if it can be used."""
        found = [] if self.rate is None else self.rate.problems()
        if self.concurrency is not None and self.concurrency < 1:
            found.append("a limit on concurrency must be 1 or more.")
        return found


class Limiter:
    """Counts attempts against one limit. Event loop only.

    Who may begin, by `is_open`, says so by `enter` at once, without awaiting anything in between. The rate is a token
    bucket, kept as the time at which it is full again.
    """

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self.running = 0
        self._slots = limit.concurrency
        self._clock = clock
        self._interval = 0.0 if limit.rate is None else limit.rate.interval_seconds
        self._slack = 0.0 if limit.rate is None else self._interval * (limit.rate.at_once - 1)
        self._full_at = clock.monotonic()
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: Permits that were promised to waiting ones, who are about to take them.
        self._promised = 0
        self._timer: Timer | None = None

    @property
    def is_open(self) -> bool:
        """Whether one more attempt may begin now."""
        return self._has_room(self._promised + 1)

    def _has_room(self, number: int) -> bool:
        if self._slots is not None and self.running + number > self._slots:
            return False
        return not self._interval or self._seconds_until(number) <= 0

    def _seconds_until(self, number: int) -> float:
        """Until the rate lets so many begin; 0 or less if it does now."""
        now = self._clock.monotonic()
        at = max(self._full_at, now) + (number - 1) * self._interval
        return at - now - self._slack - _ROUNDING_SECONDS

    def enter(self) -> None:
        """An attempt begins."""
        self.running += 1
        if self._interval:
            self._full_at = max(self._full_at, self._clock.monotonic()) + self._interval

    def leave(self, *, unused: bool = False) -> None:
        """What entered is over; if it was `unused`, no attempt was made, and its part of the rate is given back."""
        self.running -= 1
        if unused:
            self._full_at -= self._interval
        self.wake()

    @property
    def opens_in_seconds(self) -> float | None:
        """When the rate alone opens it; None if an attempt must end first."""
        if self._slots is not None and self.running >= self._slots:
            return None
        return max(0.0, self._seconds_until(1)) + _ROUNDING_SECONDS

    # -- waiting in turn ----------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait in turn until one attempt may begin; whoever then does not begin one calls `wake`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._promised -= 1
            else:
                self._waiting.remove(turn)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.wake()
            raise
        self._promised -= 1

    @property
    def waits_for_time(self) -> bool:
        """Whether somebody waits until its rate lets one begin."""
        return self._timer is not None

    def wake(self) -> None:
        """Let as many of those that wait begin as may."""
        while self._waiting and self.is_open:
            turn = self._waiting.popleft()
            if not turn.done():
                self._promised += 1
                turn.set_result(None)
        if self._waiting and self._timer is None and (seconds := self.opens_in_seconds) is not None:
            self._timer = self._clock.call_later(seconds, self._came_due)

    def _came_due(self) -> None:
        self._timer = None
        self.wake()
