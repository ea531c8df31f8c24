"""A circuit breaker that makes callers wait: while a backend is down one call at a time looks whether it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from postline.clock import Clock
from postline.errors import SettingsError

__all__ = ["Breaker", "Circuit"]


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """After `failures` calls in a row that failed, one probe at a time: at first after `probe_seconds`, then later.

    The time between probes doubles up to `probe_seconds_max`.
    """

    failures: int = 3
    probe_seconds: float = 1.0
    probe_seconds_max: float = 60.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.probe_seconds <= self.probe_seconds_max:
            raise SettingsError(
                f"Breaker can't be used: failures={self.failures}, probe_seconds={self.probe_seconds}, "
                f"probe_seconds_max={self.probe_seconds_max}.",
                remedy="Give at least one failure, and probe times above zero.",
            )


class Circuit:
    """One backend's state in one process. Event loop only.

    Nobody who waits fails: a call passes when the backend is thought to be there, or when it is its turn to look.
    """

    def __init__(self, breaker: Breaker, clock: Clock, concurrency: int) -> None:
        self._breaker, self._clock = breaker, clock
        self._places = asyncio.Semaphore(concurrency)
        self._failed = 0
        self._probe_seconds = breaker.probe_seconds
        #: Set while calls may pass; clear while it is open.
        self._closed = asyncio.Event()
        self._closed.set()
        self._probing = asyncio.Lock()
        self._next_probe = 0.0
        self._probe_under_way = False

    @property
    def open(self) -> bool:
        """Whether callers wait for the backend to come back."""
        return not self._closed.is_set()

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Wait for a place and for the backend; say by `succeeded` or `failed` inside how the call ended."""
        async with self._places:
            while not self._closed.is_set():
                async with self._probing:
                    if self._closed.is_set():
                        break  # whoever probed before has found it back
                    await self._clock.sleep(max(0.0, self._next_probe - self._clock.monotonic()))
                    self._probe_under_way = True
                    try:
                        yield
                    finally:
                        self._probe_under_way = False
                    return
            yield

    def succeeded(self) -> None:
        """The backend answered: everybody may pass."""
        self._failed = 0
        self._probe_seconds = self._breaker.probe_seconds
        self._closed.set()

    def failed(self) -> bool:
        """The backend did not answer as it should; whether that opened the circuit."""
        self._failed += 1
        if self._failed < self._breaker.failures:
            return False
        newly = self._closed.is_set()
        if self._probe_under_way:  # calls that were under way when it opened say nothing new
            self._probe_seconds = min(self._probe_seconds * 2, self._breaker.probe_seconds_max)
        self._closed.clear()
        if newly or self._probe_under_way:
            self._next_probe = self._clock.monotonic() + self._probe_seconds
        return newly
