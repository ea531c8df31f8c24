"""Signals that tell a process to stop: the first is a request, a later one an order."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from postline.cli.failures import INTERRUPTED
from postline.clock import Clock

__all__ = ["StopSignals", "handling"]

#: A signal so soon after the first is the same one again: who stops a whole process group, or the cgroup of a
#: supervisor and its workers, has it arrive twice.
_SAME_SECONDS = 1.0
_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """How often the process was told to stop."""

    def __init__(self, clock: Clock) -> None:
        #: It was asked to stop in order.
        self.asked = asyncio.Event()
        #: It was told to let go at once.
        self.ordered = asyncio.Event()
        self.clock = clock
        self._asked_at = 0.0

    def ask(self) -> None:
        """Ask to stop, for another reason than a signal; asking again changes nothing."""
        if not self.asked.is_set():
            self._asked_at = self.clock.monotonic()
            self.asked.set()

    def tell(self) -> None:
        """A signal came: it asks, or orders if stopping was asked for a second ago or longer."""
        if not self.asked.is_set():
            self.ask()
        elif self.clock.monotonic() - self._asked_at >= _SAME_SECONDS:
            self.ordered.set()


@contextmanager
def handling(stop: StopSignals, then: Callable[[], None] | None = None) -> Iterator[None]:
    """Tell `stop` of each SIGTERM and SIGINT, then call `then`, both on the running loop.

    A process that was asked to stop has nothing left to do but end, with its own exit code: from
    then on a signal that follows at once is dropped, a later one ends it where it is.
    """
    loop = asyncio.get_running_loop()

    def came() -> None:
        stop.tell()
        if then is not None:
            then()

    def received(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(came)

    # Not loop.add_signal_handler: taking such a one away makes the signal fatal for a moment, in every thread.
    before = {number: signal.signal(number, received) for number in _NUMBERS}
    try:
        yield
    finally:
        if stop.asked.is_set():
            _drop_what_follows(stop.clock)
        else:
            for number, handler in before.items():
                signal.signal(number, handler)


def _drop_what_follows(clock: Clock) -> None:
    ended_at = clock.monotonic()

    def came(number: int, frame: FrameType | None) -> None:
        if clock.monotonic() - ended_at >= _SAME_SECONDS:
            os._exit(INTERRUPTED)

    def ignore() -> None:
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    for number in _NUMBERS:
        signal.signal(number, came)
    # The interpreter takes its own handlers away before it has ended.
    atexit.register(ignore)
