"""Time: the only module that reads a clock; everything else is handed a `Clock`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["INSTANT_SECONDS", "Alarm", "Clock", "SystemClock", "Timer", "VirtualClock"]


#: Less than that to wait is nothing to wait for: sums of seconds are not exact.
INSTANT_SECONDS = 1e-6


class Timer(Protocol):
    """A pending call; `cancel` is idempotent."""

    def cancel(self) -> None:
        """Make sure the call does not happen (any more)."""


class Clock(Protocol):
    """Wall time, steady time and timers. Timers run on the event loop's thread."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since 1970 (UTC); may jump either way."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the running loop once `delay_seconds` have passed."""

    async def sleep(self, delay_seconds: float) -> None:
        """Wait `delay_seconds`; cancelling it is safe."""


class Alarm:
    """Calls back once its time has come. Putting it off, over and over, costs no timer. Event loop only."""

    __slots__ = ("_armed_for", "_clock", "_due", "_ring", "_timer")

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._timer: Timer | None = None
        self._armed_for = self._due = math.inf

    def set(self, due: float) -> None:
        """Ring at this time of `Clock.monotonic`, and no more at the one that was set before."""
        self._due = due
        if due < self._armed_for:
            self._arm()

    @property
    def due(self) -> float:
        """When it will ring; infinite if it won't."""
        return self._due

    def clear(self) -> None:
        """Don't ring."""
        self._due = math.inf

    def stop(self) -> None:
        """Don't ring, and leave no timer behind."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = None, math.inf

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = self._due
        self._timer = self._clock.call_later(self._due - self._clock.monotonic(), self._look)

    def _look(self) -> None:
        self._timer, self._armed_for = None, math.inf
        if self._due - self._clock.monotonic() < INSTANT_SECONDS:
            self._due = math.inf
            self._ring()
        elif self._due < math.inf:
            self._arm()


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Steady seconds of the machine."""
        return time.monotonic()

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the running loop after `delay_seconds`."""
        return asyncio.get_running_loop().call_later(delay_seconds, callback)

    async def sleep(self, delay_seconds: float) -> None:
        """Wait `delay_seconds` of real time."""
        await asyncio.sleep(delay_seconds)


class _VirtualTimer:
    """A timer of the virtual clock; a cancelled one is skipped when its time comes."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A clock that stands still until it is moved; for tests. Not thread-safe.

    `move_to` fires what becomes due; `jump_wall` moves wall time alone, as an operator or a time
    daemon would.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = float(start_ms)
        self._steady = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _VirtualTimer]] = []

    def now_ms(self) -> int:
        """Virtual wall-clock milliseconds."""
        return int(self._wall_ms)

    def monotonic(self) -> float:
        """Virtual steady seconds since the clock was made."""
        return self._steady

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` when the clock is moved past `delay_seconds` from now."""
        timer = _VirtualTimer(callback)
        heapq.heappush(self._timers, (self._steady + max(0.0, delay_seconds), next(self._order), timer))
        return timer

    async def sleep(self, delay_seconds: float) -> None:
        """Wait until the clock is moved past `delay_seconds` from now."""
        woken = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(delay_seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    def jump_wall(self, seconds: float) -> None:
        """Move wall time alone, either way; steady time and timers don't notice."""
        self._wall_ms += seconds * 1000

    def next_due(self) -> float | None:
        """Steady time of the earliest pending timer, None if there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def move_to(self, steady: float) -> None:
        """Move both clocks to steady time `steady` and fire what came due, in order."""
        while (due := self.next_due()) is not None and due <= steady:
            _, _, timer = heapq.heappop(self._timers)
            self._set(due)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._set(steady)

    def _set(self, steady: float) -> None:
        passed = max(0.0, steady - self._steady)
        self._steady += passed
        self._wall_ms += passed * 1000
