"""Stalls of the event loop itself, which only another thread can see."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType

from postline.clock import Clock
from postline.logs.events import event
from postline.runtime.stacks import thread_stack

__all__ = ["LoopWatch"]

_log = logging.getLogger("postline.runtime")

_BEAT_SECONDS = 0.5


class LoopWatch:
    """Says, once for each stall, that the running loop has not turned for so long, and where its thread stands.

    A context manager for the loop that it is entered in; costs a timer and a thread that wake twice a second.
    """

    def __init__(self, clock: Clock, stall_seconds: float = 2.0) -> None:
        self._clock, self._stall_seconds = clock, stall_seconds
        self._over = threading.Event()
        self._turned = 0.0

    def __enter__(self) -> LoopWatch:
        self._loop, self._ident = asyncio.get_running_loop(), threading.get_ident()
        self._beat()
        threading.Thread(target=self._watch, name="postline loop watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._timer.cancel()

    def _beat(self) -> None:
        self._turned = self._clock.monotonic()
        self._timer = self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        named = 0.0
        while not self._over.wait(_BEAT_SECONDS):
            turned = self._turned
            if turned != named and self._clock.monotonic() - turned > self._stall_seconds + _BEAT_SECONDS:
                named = turned
                _log.warning(
                    "the event loop has not turned for %.1f s, so nothing goes on in this process; it stands at\n%s",
                    *(self._clock.monotonic() - turned, thread_stack(self._ident).rstrip()),
                    extra=event("loop.stalled"),
                )
