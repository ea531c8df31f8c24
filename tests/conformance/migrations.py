"""Moving one engine's log to another's, as the conformance suite does it."""

from __future__ import annotations

import random

from postline.clock import SystemClock
from postline.ids import IdSource
from postline.log.port import Log
from postline.log.transfer import MovableLog
from postline.migration import Migration, Report
from tests.conformance.harness import Engine, Unsupported

__all__ = ["migration", "movable", "moved"]


def movable(log: Log) -> MovableLog:
    """The log, if its engine can move."""
    if not hasattr(log, "transfer"):
        raise Unsupported("this engine only simulates one")
    return log  # type: ignore[return-value]


async def migration(source: Log, target: Engine) -> Migration:
    """From this log to the target."""
    clock = SystemClock()
    ids = IdSource(clock.now_ms, random.Random(5))
    return Migration(movable(source), movable(await target.open()), clock, ids.next_id, lambda progress: None)


async def moved(source: Log, target: Engine) -> Report:
    """Everything, at once."""
    report = await (await migration(source, target)).cut_over()
    assert report.moved
    return report
