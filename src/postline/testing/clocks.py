"""Virtual time for tests: one clock, on which the log's own housekeeping is told from what a test waits for."""

from __future__ import annotations

from collections.abc import Callable

from postline.clock import Timer, VirtualClock
from postline.runtime.deadlines import DeadlineSweeper
from postline.runtime.heeding import Heeding
from postline.runtime.wall import WallWatch

__all__ = ["HousekeepingClock", "TestClock"]


class TestClock(VirtualClock):
    """A virtual clock that knows which of its timers a test would step to."""

    #: Not a test class, whatever its name says to pytest.
    __test__ = False

    def __init__(self, start_ms: int) -> None:
        super().__init__(start_ms)
        #: Tasks that sleep on this clock.
        self.sleepers = 0
        self._housekeeping: set[Timer] = set()

    async def sleep(self, delay_seconds: float) -> None:
        """Wait until the clock is moved past `delay_seconds` from now."""
        self.sleepers += 1
        try:
            await super().sleep(delay_seconds)
        finally:
            self.sleepers -= 1

    def add_housekeeping(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """A timer that fires when time passes it, and that nobody steps to."""

        def fire() -> None:
            self._housekeeping.discard(timer)
            callback()

        timer = self.call_later(delay_seconds, fire)
        self._housekeeping.add(timer)
        return timer

    def next_step(self, with_limits: bool) -> float | None:
        """Steady time of the next timer worth stepping to; those of time limits only while attempts run."""
        pending = [
            due
            for due, _, timer in self._timers
            if timer.callback is not None
            and timer not in self._housekeeping
            and not isinstance(getattr(timer.callback, "__self__", None), WallWatch | Heeding)
            and (with_limits or not isinstance(getattr(timer.callback, "__self__", None), DeadlineSweeper))
        ]
        return min(pending, default=None)


class HousekeepingClock:
    """The clock as the log sees it: its periodic work is done when time passes, at no step of its own."""

    def __init__(self, clock: TestClock) -> None:
        self._clock = clock
        self.now_ms = clock.now_ms
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` when the clock is moved past `delay_seconds` from now."""
        return self._clock.add_housekeeping(delay_seconds, callback)
