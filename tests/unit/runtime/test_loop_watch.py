"""Stalls of the event loop, named by a thread with where the loop's own stands."""

from __future__ import annotations

import logging
import threading

from postline.clock import SystemClock
from postline.runtime.loop_watch import LoopWatch

_PATIENCE_SECONDS = 30.0


async def test_a_loop_that_does_not_turn_is_named_once_with_its_stack() -> None:
    named, said = threading.Event(), list[str]()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            named.set()

    logger, listening = logging.getLogger("postline.runtime"), Listening(logging.WARNING)
    logger.addHandler(listening)
    try:
        with LoopWatch(SystemClock(), stall_seconds=0.01):
            assert named.wait(_PATIENCE_SECONDS), "said by another thread, since this one blocks the loop"
    finally:
        logger.removeHandler(listening)
    (line,) = said
    assert "has not turned" in line
    assert "named.wait(_PATIENCE_SECONDS)" in line
