"""One sweeper for the time limits of all attempts of a subscription."""

from __future__ import annotations

from postline.clock import Clock, Timer
from postline.runtime.plan import Plan
from postline.runtime.workers import Worker, WorkerPool

__all__ = ["DeadlineSweeper"]


class DeadlineSweeper:
    """Cancels attempts that go on past the limit; looks four times a limit, not once a record.

    An attempt ends between 1 and 1.25 times its limit.
    """

    def __init__(self, plan: Plan, clock: Clock, pool: WorkerPool) -> None:
        limits = {plan.timeout_seconds, *(handler.timeout_seconds for handler in plan.handlers.values())}
        self._limit = plan.timeout_seconds
        self._pause = min((limit / 4 for limit in limits if limit is not None), default=None)
        self._clock = clock
        self._pool = pool
        self._seen: dict[Worker, tuple[int, float]] = {}
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to look, if there is a limit."""
        if self._pause is not None:
            self._timer = self._clock.call_later(self._pause, self._sweep)

    def stop(self) -> None:
        """Look no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        assert self._pause is not None
        now = self._clock.monotonic()
        seen: dict[Worker, tuple[int, float]] = {}
        for worker in self._pool.workers:
            if worker.owned is None or worker.task is None or worker.timed_out or worker.dropped:
                continue
            limit = worker.limit or self._limit
            attempt, since = self._seen.get(worker, (-1, now))
            if attempt != worker.attempt:
                since = now
            elif limit is not None and now - since >= limit:
                worker.timed_out = True
                worker.task.cancel()
                continue
            seen[worker] = (worker.attempt, since)
        self._seen = seen
        self._timer = self._clock.call_later(self._pause, self._sweep)
