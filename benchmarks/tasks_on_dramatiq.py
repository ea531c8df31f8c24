"""The Dramatiq broker whose tasks benchmarks/tasks.py sends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

__all__ = ["CALLERS", "WORKER", "send", "work"]

WORKER = [sys.executable, "-m", "dramatiq", "benchmarks.tasks_on_dramatiq", "--processes", "1", "--threads", "8"]

#: Threads that send.
CALLERS = 8

_url = f"redis://127.0.0.1:{os.environ.get('POSTLINE_BENCH_PLACE', '6379')}/0"
_broker: Any = RedisBroker(url=_url)
_broker.add_middleware(Results(backend=RedisBackend(url=_url)))
dramatiq.set_broker(_broker)


@dramatiq.actor(store_results=True)
def work(path: str, width: int) -> int:
    """Does nothing."""
    return width


def send(number: int) -> Callable[[], Any]:
    """Send one; what waits for its result."""
    message: Any = work.send("cat.jpg", number)
    return lambda: message.get_result(block=True, timeout=120_000)
