"""How one open log meets the others on its file: signs of life, the bell, and news for its memberships."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from postline.clock import Clock, Timer
from postline.log.sqlite.appending import Appended
from postline.log.sqlite.doorbell import GROUP_CHANGED, RECORDS_APPENDED, Doorbell
from postline.log.sqlite.liveness import FileLiveness, Liveness, MemoryLiveness

__all__ = ["Listener", "Presence"]

#: How often a member looks for the dead: well within the second in which they have to be found.
TICK_SECONDS = 0.5
_BEATS_IN_A_LEASE = 5


class Listener(Protocol):
    """A membership of this log, as the presence knows it."""

    def records_appended(self, appended: Appended | None) -> None:
        """These partitions got records; None if nobody knows which."""

    def group_changed(self) -> None:
        """Members or assignments may have changed."""

    def tick(self) -> None:
        """Time to look for the dead."""


class Presence:
    """Shared by all memberships of one open log; the event loop's property.

    `directory` is None for a log in memory, which has no neighbours: no socket, thread or timer.
    """

    def __init__(
        self, directory: Path | None, clock: Clock, *, lease_seconds: float, version: Callable[[], int]
    ) -> None:
        self._clock = clock
        self._listeners: dict[Listener, None] = {}
        self._numbers = itertools.count(1)
        self._timer: Timer | None = None
        self._bell: Doorbell | None = None
        self._wake_all: Callable[[], None] = lambda: None
        #: Called at every tick, before the listeners.
        self.before_tick: Callable[[], None] = lambda: None
        self.liveness: Liveness
        self._process = "memory"
        if directory is None:
            self.liveness = MemoryLiveness()
            return
        living = FileLiveness(directory, clock, beat_seconds=min(1.0, lease_seconds / _BEATS_IN_A_LEASE))
        self.liveness, self._process = living, living.process
        self._bell = Doorbell(directory, living.process, clock=clock, version=version, on_ring=self._heard)

    def start(self, wake_all: Callable[[], None]) -> None:
        """Begin to listen; `wake_all` is called when another process may have appended something."""
        self._wake_all = wake_all
        if self._bell is not None:
            self._bell.start()
            self._tick()

    def close(self) -> None:
        """Stop listening and give up the signs of life. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._bell is not None:
            self._bell.close()
        self.liveness.close()

    def new_member(self) -> str:
        """A name that no other member has or had."""
        return f"{self._process}/{next(self._numbers)}"

    def add(self, listener: Listener) -> None:
        """Pass news on to it, from now on."""
        self._listeners[listener] = None

    def discard(self, listener: Listener) -> None:
        """Pass nothing more on to it."""
        self._listeners.pop(listener, None)

    def appended(self, appended: Appended) -> None:
        """Tell this log's memberships what it has itself appended."""
        for listener in list(self._listeners):
            listener.records_appended(appended)

    def ring_for_records(self, appended: Appended) -> None:
        """Tell the other processes; called on the writing thread after COMMIT."""
        if appended and self._bell is not None:
            self._bell.ring(RECORDS_APPENDED)

    def announce_group(self) -> None:
        """Tell everybody that members or assignments have changed."""
        for listener in list(self._listeners):
            listener.group_changed()
        if self._bell is not None:
            self._bell.ring(GROUP_CHANGED)

    def _heard(self, group: bool) -> None:
        self._wake_all()
        for listener in list(self._listeners):
            listener.records_appended(None)
            if group:
                listener.group_changed()

    def _tick(self) -> None:
        self._timer = self._clock.call_later(TICK_SECONDS, self._tick)
        self.liveness.tick()
        self.before_tick()
        for listener in list(self._listeners):
            listener.tick()


def instance_name() -> str:
    """What operators see of a process that gave itself no name."""
    return f"{os.uname().nodename}:{os.getpid()}"
