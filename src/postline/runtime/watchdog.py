"""Attempts that don't come back: seen by looking at workers every few seconds, named with where they stand."""

from __future__ import annotations

import logging
from typing import NamedTuple

from postline.clock import Clock, Timer
from postline.logs.events import event
from postline.runtime.causes import Causes
from postline.runtime.crew import Worker
from postline.runtime.plan import Plan
from postline.runtime.stacks import task_stack, thread_stack
from postline.runtime.workers import WorkerPool

__all__ = ["Watchdog"]

_log = logging.getLogger("postline.runtime")

_LOOK_SECONDS_MAX = 5.0


class _Seen(NamedTuple):
    """What a worker was at when it was looked at."""

    attempt: int
    ended: int
    since: float
    #: The handler that it was named with; "" while it is not slow.
    named: str


class Watchdog:
    """Names handlers whose attempt goes on for longer than `Plan.slow_seconds`. Event loop only.

    One log line with the stack of the first, and a cause in partition state, for as long as any attempt of the handler
    goes on so. It is named between 1 and 1.25 times the limit.
    """

    def __init__(self, plan: Plan, clock: Clock, pool: WorkerPool, causes: Causes) -> None:
        self._plan, self._clock, self._pool, self._causes = plan, clock, pool, causes
        self._pause = min(plan.slow_seconds / 4, _LOOK_SECONDS_MAX)
        self._seen: dict[Worker, _Seen] = {}
        #: Handlers that don't come back.
        self._slow: set[str] = set()
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._clock.call_later(self._pause, self._look)

    def stop(self) -> None:
        """Look no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._clock.monotonic()
        before, self._seen = self._seen, {}
        for worker in self._pool.workers:
            # A crew's workers run the lanes of siblings, too.
            if worker.owned is not None and worker.owned.plan is self._plan:
                self._seen[worker] = self._looked_at(worker, before.get(worker), now)
        for name in self._slow - {seen.named for seen in self._seen.values()}:
            self._slow.remove(name)
            _log.info(
                "subscription %s: handler %s has come back",
                self._plan.name,
                name,
                extra=event("handler.back", subscription=self._plan.name, handler=name),
            )
            self._causes.end("handler", name)
        self._timer = self._clock.call_later(self._pause, self._look)

    def _looked_at(self, worker: Worker, before: _Seen | None, now: float) -> _Seen:
        ended = worker.ended
        if before is None or (before.attempt, before.ended) != (worker.attempt, ended):
            return _Seen(worker.attempt, ended, now, "")
        if before.named or now - before.since < self._plan.slow_seconds:
            return before
        return before._replace(named=self._name(worker, ended, now - before.since))

    def _name(self, worker: Worker, ended: int, seconds: float) -> str:
        """Say which handler it is and where it stands; gives its name."""
        assert worker.owned is not None
        assert worker.task is not None
        handler, place = "of a batch", f"{worker.owned.topic} {worker.owned.partition}"
        if worker.lane is not None and len(worker.lane.items) > ended:
            item = worker.lane.items[ended]
            handler = item[3].function.__qualname__ if item[3] is not None else handler
            place += f":{item[2][0]}"
        if handler in self._slow:
            return handler
        self._slow.add(handler)
        thread = self._pool.calls.threads.get(worker.task)
        stack = (thread_stack(thread) if thread is not None else "") or task_stack(worker.task)
        _log.warning(
            "subscription %s: handler %s has been at %s for %.0f s and does not come back; it stands at\n%s",
            *(self._plan.name, handler, place, seconds, stack.rstrip()),
            extra=event("handler.stalled", subscription=self._plan.name, handler=handler),
        )
        since_ms = self._clock.now_ms() - round(seconds * 1000)
        self._causes.begin("handler", handler, f"at {place}\n{stack}", since_ms)
        return handler
