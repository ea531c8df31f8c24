"""Running apps until nothing more can happen, without waiting: the bounded loop behind `TestApp.settle`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from postline.clock import SystemClock
from postline.runtime.consumer import Consumer
from postline.runtime.gates import LOOK_SECONDS
from postline.testing.clocks import TestClock

__all__ = ["Settling"]

T = TypeVar("T")

#: Turns of the event loop between two looks; a record passes from commit to handler in fewer.
_TURNS = 12
_PAUSE_SECONDS = 0.001
#: Real time for an attempt that may well be waiting for virtual time.
_SHORT_PATIENCE_SECONDS = 0.05
#: And where nothing is at work.
_LEAST_PATIENCE_SECONDS = 0.004


class Settling:
    """Turns the loop until all consumers are caught up, or stand still; what waits for a backend counts as held.

    Threads and sockets of handlers take real time; `patience_seconds` bounds how long nothing at
    all may change. `attempts_max` bounds apps that feed each other for ever.
    """

    def __init__(
        self,
        clock: TestClock,
        consumers: Callable[[], Sequence[Consumer]],
        *,
        patience_seconds: float,
        attempts_max: int,
    ) -> None:
        self._clock = clock
        self._consumers = consumers
        self._patience = patience_seconds
        self._attempts_max = attempts_max
        self._real = SystemClock()
        #: Calls that may be waiting for virtual time.
        self._waiting = 0

    async def settle(self) -> None:
        """Return once everything is settled or held. Raises a consumer's error, or AssertionError if stuck."""
        await self._run(lenient=False)

    async def pass_by(self) -> None:
        """As `settle`, but attempts that may be waiting for virtual time are left at it."""
        await self._run(lenient=True)

    async def see_through(self, stopping: asyncio.Future[None]) -> None:
        """Wait for an app to stop; what it waits for in vain, its grace period ends."""
        still_since = self._real.monotonic()
        while not stopping.done():
            await self.turn()
            due = self._clock.next_due()
            if due is not None and self._real.monotonic() - still_since > _SHORT_PATIENCE_SECONDS:
                self._clock.move_to(due)
            await self._real.sleep(0 if stopping.done() else _PAUSE_SECONDS)
        await stopping

    async def until_done(self, task: asyncio.Future[T]) -> T:
        """What a task gives, that may wait for others' progress or for virtual time, which passes then as it must."""
        await self.turn()
        self._waiting += 1
        try:
            while not task.done():
                await self.pass_by()
                if not task.done() and (due := self._clock.next_step(self.attempts_run())) is not None:
                    self._clock.move_to(due)
                    await self.turn()
            return await task
        finally:
            self._waiting -= 1
            task.cancel()

    def attempts_run(self) -> bool:
        """Whether a handler is at work."""
        return any(consumer.pool.running for consumer in self._consumers())

    async def turn(self) -> None:
        """Let all tasks go on for a little."""
        for _ in range(_TURNS):
            await self._real.sleep(0)

    async def _run(self, *, lenient: bool) -> None:
        before, last, still = self._work_done(), None, _Stillness(self._real)
        while not await self._is_over():
            if self._work_done() - before > self._attempts_max:
                raise AssertionError(
                    f"More than {self._attempts_max} records were handled and no end is in sight: {self._busy()}. "
                    "If handlers don't feed each other in a circle, raise attempts_max."
                )
            stamp = self._stamp()
            if stamp != last:
                last, still = stamp, _Stillness(self._real)
                continue
            if self._waits_for_a_backend() and still.longer_than(_LEAST_PATIENCE_SECONDS):
                return
            if lenient and self._waits_for_a_rate() and still.longer_than(_LEAST_PATIENCE_SECONDS):
                return
            if lenient and self._may_wait_for_time() and still.longer_than(_SHORT_PATIENCE_SECONDS):
                return
            if still.longer_than(self._patience):
                raise AssertionError(
                    f"Nothing has happened for {self._patience:g} s, but not everything is settled: {self._busy()}. "
                    "If a handler waits for virtual time, advance() the clock; if it is slow, raise patience_seconds."
                )
            self._let_commit()
            if not lenient:
                self._let_look()
            await self._real.sleep(_PAUSE_SECONDS)

    async def _is_over(self) -> bool:
        await self.turn()
        self._raise_failure()
        if not await self._caught_up():
            return False
        await self.turn()  # a task of the app's own may be about to publish
        return await self._caught_up()

    async def _caught_up(self) -> bool:
        return all([await consumer.caught_up() for consumer in self._consumers()])

    def _waits_for_a_rate(self) -> bool:
        """Whether nothing is at work, and lanes wait until a limit lets them begin."""
        consumers = self._consumers()
        return any(c.pool.waits_for_time for c in consumers) and not self.attempts_run()

    def _waits_for_a_backend(self) -> bool:
        """Whether nothing is left to do but to look whether a backend is back, later: such records count as held."""
        consumers = self._consumers()
        waiting = any(c.pool.waits_for_backend for c in consumers)
        return waiting and not any(c.pool.running or c.pool.ready or c.uncommitted for c in consumers)

    def _may_wait_for_time(self) -> bool:
        if self._waiting or any(
            consumer.restraint is not None and consumer.restraint.stopped for consumer in self._consumers()
        ):
            return True
        limited = any(c.pool.running and c.plan.timeout_seconds is not None for c in self._consumers())
        return self._clock.sleepers > 0 or limited

    def _let_commit(self) -> None:
        """A commit lingers for more while a handler is at work: let that little time pass."""
        for consumer in self._consumers():
            if consumer.pool.running and any(owned.unit for owned in consumer.owned.values()):
                self._clock.move_to(self._clock.monotonic() + consumer.plan.commit_linger_seconds)
                return

    def _let_look(self) -> None:
        """A subscription that stands still for a topic's bound looks again after a little time: let it pass."""
        for consumer in self._consumers():
            if consumer.restraint is not None and consumer.restraint.stopped:
                self._clock.move_to(self._clock.monotonic() + LOOK_SECONDS)
                return

    def _raise_failure(self) -> None:
        for consumer in self._consumers():
            if consumer.failed is not None and consumer.failed.done():
                raise consumer.failed.result()

    def _work_done(self) -> int:
        return sum(self._stamps_of(lambda c: [*(w.attempt for w in c.pool.workers), *_positions(c)]))

    def _stamp(self) -> list[int]:
        return list(
            self._stamps_of(
                lambda c: [
                    *(worker.attempt for worker in c.pool.workers),
                    *_positions(c),
                    *(owned.window.pending() for owned in c.owned.values()),
                    len(c.owned),
                    c.pool.running,
                    len(c.pool.ready),
                ]
            )
        )

    def _stamps_of(self, numbers: Callable[[Consumer], list[int]]) -> Iterator[int]:
        for consumer in self._consumers():
            yield from numbers(consumer)

    def _busy(self) -> str:
        found = []
        for consumer in self._consumers():
            pool, plan = consumer.pool, consumer.plan
            waiting = sum(owned.window.pending() for owned in consumer.owned.values())
            if pool.running or pool.ready or waiting or not consumer.owned:
                found.append(
                    f"subscription {plan.name!r} owns {len(consumer.owned)} partitions, has {pool.running} attempts "
                    f"running, {len(pool.ready)} keys ready and {waiting} records not settled"
                )
            if consumer.restraint is not None and consumer.restraint.stopped:
                found.append(
                    f"subscription {plan.name!r} stands still for the bound of topic {consumer.restraint.stopped_for!r}"
                )
        return "; ".join(found) or "a commit or a fetch does not come back"


class _Stillness:
    """How long nothing has happened; on a busy machine time passes in which nothing could."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._looks = 0

    def longer_than(self, seconds: float) -> bool:
        """Whether that much time has passed, and most of the looks in it were had."""
        self._looks += 1
        return self._clock.monotonic() - self._since > seconds and self._looks > seconds / _PAUSE_SECONDS / 4


def _positions(consumer: Consumer) -> list[int]:
    return [owned.window.position for owned in consumer.owned.values()]
