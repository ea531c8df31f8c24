"""What will become of one request, for all in this process who wait for it."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from postline.clock import Clock

__all__ = ["Expected"]

OutcomeT = TypeVar("OutcomeT")


class Expected(Generic[OutcomeT]):
    """Resolved once; any number of tasks may wait, and each may be cancelled without the others. Event loop only.

    A future of its own for each waiter, resolved at once: a future that they shared would wake them a turn later.
    """

    __slots__ = ("__weakref__", "_error", "_outcome", "_waiting")

    def __init__(self) -> None:
        self._outcome: OutcomeT | None = None
        self._error: Exception | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def done(self) -> bool:
        """Whether there is an outcome, or an error in its place."""
        return self._outcome is not None or self._error is not None

    def resolve(self, outcome: OutcomeT) -> None:
        """The outcome has come; the first one counts."""
        if not self.done:
            self._outcome = outcome
            self._wake()

    def fail(self, error: Exception) -> None:
        """There will be no outcome here, for this reason."""
        if not self.done:
            self._error = error
            self._wake()

    async def wait(self, clock: Clock, seconds: float | None) -> OutcomeT | None:
        """The outcome; None after so many seconds. Raises what it failed with."""
        if not self.done:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            timer = None if seconds is None else clock.call_later(seconds, lambda: _finish(waiting))
            try:
                await waiting
            finally:
                self._waiting.remove(waiting)
                if timer is not None:
                    timer.cancel()
        if self._error is not None:
            raise self._error
        return self._outcome

    def _wake(self) -> None:
        for waiting in self._waiting:
            _finish(waiting)


def _finish(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
