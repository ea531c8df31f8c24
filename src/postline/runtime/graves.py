"""How many dead letters a partition has, and since when: exact in number, a lower bound in time."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Graves"]


class Graves:
    """Counts one owned partition's dead letters. Event loop only."""

    def __init__(self) -> None:
        self.count = 0
        #: No letter failed before this (wall-clock milliseconds); None while there is none.
        self.oldest_ms: int | None = None
        #: Called after each change.
        self.changed: Callable[[], None] | None = None

    def added(self, failed_ms: int) -> None:
        """One more."""
        self.count += 1
        self.oldest_ms = failed_ms if self.oldest_ms is None else min(self.oldest_ms, failed_ms)
        if self.changed is not None:
            self.changed()

    def removed(self) -> None:
        """One was redriven or discarded."""
        self.count -= 1
        if not self.count:
            self.oldest_ms = None
        if self.changed is not None:
            self.changed()
