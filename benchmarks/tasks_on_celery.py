"""The Celery app whose tasks benchmarks/tasks.py sends: acknowledged late, as Postline does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from celery import Celery

__all__ = ["CALLERS", "WORKER", "app", "send", "work"]

WORKER = [sys.executable, "-m", "celery", "-A", "benchmarks.tasks_on_celery", "worker", "--concurrency", "2"]
WORKER += ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]

#: Threads that send: its reader of results on Redis is not made for several.
CALLERS = 1

_url = f"redis://127.0.0.1:{os.environ.get('POSTLINE_BENCH_PLACE', '6379')}/0"
app: Any = Celery("bench", broker=_url, backend=_url)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=64, broker_connection_retry_on_startup=True)


@app.task  # type: ignore[untyped-decorator]
def work(path: str, width: int) -> int:
    """Does nothing."""
    return width


def send(number: int) -> Callable[[], Any]:
    """Send one; what waits for its result."""
    result = work.delay("cat.jpg", number)
    return lambda: result.get(timeout=120)
