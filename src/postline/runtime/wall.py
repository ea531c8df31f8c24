"""Noticing that the wall clock was set while this process runs."""

from __future__ import annotations

from collections.abc import Callable

from postline.clock import Clock, Timer

__all__ = ["WallWatch"]

_LOOK_SECONDS = 20.0
_JUMP_SECONDS = 0.5


class WallWatch:
    """Calls `changed` when wall time and steady time have drifted apart; looks three times a minute."""

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._drift = 0.0
        self._timer: Timer | None = None

    @property
    def looking(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._timer is not None

    def start(self) -> None:
        """Begin to look. Idempotent."""
        if self._timer is None:
            self._drift = self._now()
            self._timer = self._clock.call_later(_LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> float:
        return self._clock.now_ms() / 1000 - self._clock.monotonic()

    def _look(self) -> None:
        self._timer = self._clock.call_later(_LOOK_SECONDS, self._look)
        drift = self._now()
        if abs(drift - self._drift) > _JUMP_SECONDS:
            self._drift = drift
            self._changed()
