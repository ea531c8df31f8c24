"""When a consumer whose hands are full looks for what operators and clients ask of it, beside its records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from postline.clock import Clock

__all__ = ["Heeding", "until"]

#: What is asked is looked for so often while records lie ready, which would be fetched before it.
_EVERY_SECONDS = 1.0


class Heeding:
    """Says when it is time to look. Event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_at = 0.0
        self._room = asyncio.Event()

    async def wait(self, room: asyncio.Event) -> None:
        """Wait until there is room, or it is time to look; the event is set then."""
        self._room = room
        timer = self._clock.call_later(max(0.0, self._due_at - self._clock.monotonic()), self.ring)
        try:
            await room.wait()
        finally:
            timer.cancel()

    def ring(self) -> None:
        """It is time to look."""
        self._room.set()

    def is_due(self) -> bool:
        """Whether it is time to look; if so, the next time is counted from now."""
        now = self._clock.monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + _EVERY_SECONDS
        return True


async def until(holds: Callable[[], bool], bell: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Wait until it holds, which is looked at whenever the bell rings, but only so long."""
    over = clock.monotonic() + seconds
    timer = clock.call_later(seconds, bell.set)
    while not holds() and clock.monotonic() < over:
        bell.clear()
        await bell.wait()
    timer.cancel()
