"""The huey whose tasks benchmarks/tasks.py sends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from huey import SqliteHuey

__all__ = ["CALLERS", "WORKER", "queue", "send", "work"]

WORKER = [sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.tasks_on_huey.queue"]
WORKER += ["--workers", "2", "--delay", "0.01", "--max-delay", "0.01", "--quiet"]

#: Threads that send; each task is a transaction of its own, so that more gain nothing.
CALLERS = 1

queue: Any = SqliteHuey(filename=os.environ.get("POSTLINE_BENCH_PLACE", "huey.db"), fsync=True)


@queue.task()  # type: ignore[untyped-decorator]
def work(path: str, width: int) -> int:
    """Does nothing."""
    return width


def send(number: int) -> Callable[[], Any]:
    """Send one; what waits for its result."""
    result = work("cat.jpg", number)
    return lambda: result.get(blocking=True, timeout=120, backoff=1, max_delay=0.01)
